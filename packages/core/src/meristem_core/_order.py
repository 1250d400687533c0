"""tmp"""
import numpy as np
from meristem_core._random import stream
_c={}
def shuffled_indices(n,start,stop,*,seed):
    out=[]
    for i in range(start,stop):
        e,j=divmod(i,n)
        if (n,e,seed) not in _c: _c[(n,e,seed)]=stream(seed,e).permutation(n)
        out.append(_c[(n,e,seed)][j])
    return np.array(out,dtype=np.int64)
def resample_indices(n,r,*,rng): return rng.integers(n,size=(r,n))
