import torch,time
torch.set_num_threads(1)
def t(f,n=200):
    for _ in range(20): f()
    best=9
    for _ in range(5):
        a=time.perf_counter()
        for _ in range(n): f()
        best=min(best,(time.perf_counter()-a)/n)
    return best
for m,k,n in [(512,64,64),(512,64,512),(512,256,64),(128,128,1024),(128,512,128),(32,256,2048),(32,1024,256),(154,256,64),(512,512,512)]:
    a=torch.randn(m,k); b=torch.randn(k,n); bt=torch.randn(n,k)
    s=t(lambda:a@b); l=t(lambda:torch.nn.functional.linear(a,bt))
    c=torch.nn.Conv2d(k,n,1); x=torch.randn(1,k,m,1).to(memory_format=torch.channels_last); 
    with torch.no_grad(): cc=t(lambda:c(x),50)
    f=2*m*k*n/1e9
    print((m,k,n),"mm %.0f linear %.0f conv1x1(onednn) %.0f GFLOPS"%(f/s,f/l,f/cc))
