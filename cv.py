import torch,time,torch.nn.functional as F
torch.set_num_threads(1)
def t(f,n=30):
    for _ in range(5): f()
    best=9
    for _ in range(5):
        a=time.perf_counter()
        for _ in range(n): f()
        best=min(best,(time.perf_counter()-a)/n)
    return best*1e3
def um(x,w,b,s=1):
    B,C,H,W=x.shape
    u=F.unfold(x,3,padding=1,stride=s)              # B, C9, L
    o=torch.matmul(w.flatten(1),u)                   # B,O,L
    return (o+b[:,None]).view(B,-1,H//s,W//s)
def um2(x,w,b,s=1):
    B,C,H,W=x.shape
    u=F.unfold(x,3,padding=1,stride=s).transpose(1,2).reshape(-1,C*9)
    o=F.linear(u,w.flatten(1),b)
    return o.view(B,H//s,W//s,-1).permute(0,3,1,2).contiguous()
for ci,co,h in [(64,64,16),(128,64,16),(192,64,16),(128,128,8),(256,128,8),(384,128,8),(256,256,4),(512,256,4),(384,256,4)]:
    x=torch.randn(2,ci,h,h,requires_grad=True); w=torch.randn(co,ci,3,3,requires_grad=True); b=torch.randn(co,requires_grad=True)
    r=[]
    for f in (lambda:F.conv2d(x,w,b,padding=1),lambda:um(x,w,b),lambda:um2(x,w,b)):
        with torch.no_grad(): fw=t(f)
        def fb():
            o=f(); torch.autograd.grad(o,(x,w,b),o)
        r+=[fw,t(fb)]
    fl=2*9*ci*co*h*h*2/1e9
    print((ci,co,h),"conv %.2f %.2f | unfold %.2f %.2f | linear %.2f %.2f"%tuple(r), "ideal(100GF) fwd %.2f"%(fl/100*1e3))
