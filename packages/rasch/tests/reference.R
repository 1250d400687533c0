# Prints "key number number ..." lines; every fit is made by eRm or psychotools on bundled data.
suppressMessages({library(eRm); library(psychotools)})
put <- function(key, x) cat(key, format(as.numeric(x), digits = 17, trim = TRUE), "\n")
table_of <- function(key, x) { put(paste0(key, ".dim"), dim(x)); put(paste0(key, ".data"), t(x)) }
tight <- list(reltol = 1e-15, maxit = 1000L)

psycho <- function(key, x, fit) {
  table_of(key, x)
  m <- do.call(fit, c(list(x), tight))
  t <- threshpar(m)
  put(paste0(key, ".loglik"), m$loglik)
  put(paste0(key, ".threshold"), unlist(coef(t)))
  put(paste0(key, ".vcov"), vcov(t))
}

erm <- function(key, x, fit, tests = TRUE) {
  table_of(key, x)
  m <- fit(x)
  put(paste0(key, ".loglik"), m$loglik)
  put(paste0(key, ".beta"), -m$betapar)
  put(paste0(key, ".se"), m$se.beta)
  if (!tests) return(invisible())
  f <- itemfit(person.parameter(m))
  put(paste0(key, ".outfit"), f$i.outfitMSQ)
  put(paste0(key, ".infit"), f$i.infitMSQ)
  put(paste0(key, ".outfit_t"), f$i.outfitZ)
  put(paste0(key, ".infit_t"), f$i.infitZ)
  for (split in c("median", "mean")) {
    l <- LRtest(m, splitcr = split)
    put(paste0(key, ".lr_", split), c(l$LR, l$df))
  }
  put(paste0(key, ".mloef"), unlist(MLoef(m)[c("LR", "df")]))
}

linear <- function(key, x, fit) {
  table_of(key, x)
  m <- fit(x)
  put(paste0(key, ".loglik"), m$loglik)
  put(paste0(key, ".eta"), m$etapar)
  put(paste0(key, ".se"), m$se.eta)
  table_of(paste0(key, ".W"), m$W)
}

data(VerbalAggression); data(MathExam14W); data(ConspiracistBeliefs2016)
psycho("psychotools.rasch.VerbalAggression", as.matrix(VerbalAggression$resp2), raschmodel)
psycho("psychotools.pcm.VerbalAggression", as.matrix(VerbalAggression$resp), pcmodel)
psycho("psychotools.rsm.VerbalAggression", as.matrix(VerbalAggression$resp), rsmodel)
psycho("psychotools.rasch.MathExam14W", as.matrix(MathExam14W$solved), raschmodel)
psycho("psychotools.pcm.MathExam14W", as.matrix(MathExam14W$credits), pcmodel)
psycho("psychotools.pcm.ConspiracistBeliefs", as.matrix(ConspiracistBeliefs2016$resp), pcmodel)
psycho("psychotools.rsm.ConspiracistBeliefs", as.matrix(ConspiracistBeliefs2016$resp), rsmodel)
for (name in c("raschdat1", "raschdat3", "xmpl"))
  psycho(paste0("psychotools.rasch.", name), as.matrix(get(name)), raschmodel)
for (name in c("raschdat1", "raschdat2", "raschdat3", "raschdat4", "xmpl"))
  erm(paste0("erm.rasch.", name), as.matrix(get(name)), RM, name == "raschdat3")
for (name in c("pcmdat", "pcmdat2"))
  erm(paste0("erm.pcm.", name), as.matrix(get(name)), PCM, FALSE)
for (name in c("rsmdat", "pcmdat2"))
  erm(paste0("erm.rsm.", name), as.matrix(get(name)), RSM, FALSE)
linear("erm.linear.LLTM", as.matrix(lltmdat1), function(x) LLTM(x, mpoints = 2))
linear("erm.linear.LPCM", as.matrix(lpcmdat), function(x) LPCM(x, mpoints = 2))
linear("erm.linear.LRSM", as.matrix(lrsmdat), function(x) LRSM(x, mpoints = 2))
