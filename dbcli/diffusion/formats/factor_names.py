"""How LyCORIS, kohya's tools, ComfyUI and PEFT call the factors of LyCORIS' products."""

LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
FACTORS = (*LOKR, *LOHA)
