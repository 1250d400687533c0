# Prints "key number number ..." lines; every fit is made by eRm or psychotools on bundled data.
# Rscript reference.R quick|slow: the fits that take R seconds or half a minute
quick <- commandArgs(TRUE)[1] == "quick"
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

# eRm's likelihood, its optimiser polished: nlm stops where the gradient relative to the likelihood's
# size is below 1e-6, up to 4e-4 from the optimum, and its Hessian by forward differences leaves 3e-4
# in the errors. Two Newton steps with central differences of the same likelihood mend both;
# "stopped" is where nlm stopped.
imports <- parent.env(asNamespace("eRm"))
unlockBinding("nlm", imports)
optimiser <- function(f) assign("nlm", f, imports)
polished <- function(f, p, hessian = FALSE, ...) {
  out <- stats::nlm(f, p, hessian = TRUE, ...)
  stopped <<- c(-out$minimum, out$estimate)
  for (again in 1:2)
    out$estimate <- out$estimate - solve(out$hessian, central_gradient(f, out$estimate))
  out$minimum <- f(out$estimate)
  if (hessian) out$hessian <- central_hessian(f, out$estimate)
  out
}
central_gradient <- function(f, p, h = 1e-4)
  sapply(seq_along(p), function(i) {
    e <- h * (seq_along(p) == i)
    (f(p + e) - f(p - e)) / (2 * h)
  })
central_hessian <- function(f, p, h = 2e-3) {
  out <- matrix(0, length(p), length(p))
  for (i in seq_along(p)) for (j in seq_len(i)) {
    a <- h * (seq_along(p) == i); b <- h * (seq_along(p) == j)
    out[i, j] <- out[j, i] <-
      (f(p + a + b) - f(p + a - b) - f(p - a + b) + f(p - a - b)) / (4 * h^2)
  }
  out
}

erm <- function(key, x, fit, tests = FALSE) {
  table_of(key, x)
  optimiser(polished)
  m <- fit(x)
  if (tests) w <- Waldtest(m)
  optimiser(stats::nlm)
  put(paste0(key, ".loglik"), m$loglik)
  put(paste0(key, ".beta"), -m$betapar)
  put(paste0(key, ".se"), m$se.beta)
  if (!tests) return(invisible())
  p <- person.parameter(m)
  known <- p$theta.table[!p$theta.table$Interpolated, ]
  put(paste0(key, ".person"), as.numeric(sub("P", "", rownames(known))))
  put(paste0(key, ".theta"), known[["Person Parameter"]])
  put(paste0(key, ".theta_se"), unlist(p$se.theta))
  put(paste0(key, ".separation"), SepRel(p)$sep.rel)
  f <- itemfit(p)
  put(paste0(key, ".outfit"), f$i.outfitMSQ)
  put(paste0(key, ".infit"), f$i.infitMSQ)
  put(paste0(key, ".outfit_t"), f$i.outfitZ)
  put(paste0(key, ".infit_t"), f$i.infitZ)
  f <- personfit(p)
  put(paste0(key, ".p_outfit"), f$p.outfitMSQ)
  put(paste0(key, ".p_infit"), f$p.infitMSQ)
  put(paste0(key, ".p_outfit_t"), f$p.outfitZ)
  put(paste0(key, ".p_infit_t"), f$p.infitZ)
  put(paste0(key, ".information"), sapply(item_info(m, theta = -2:2), function(i) i$i.info))
  put(paste0(key, ".wald"), w$coef.table[, 1])
  for (split in c("median", "mean")) {
    l <- LRtest(m, splitcr = split, se = FALSE)
    put(paste0(key, ".lr_", split), c(l$LR, l$df))
  }
  put(paste0(key, ".mloef"), unlist(MLoef(m)[c("LR", "df")]))
}

linear <- function(key, x, fit) {
  table_of(key, x)
  optimiser(polished)
  m <- fit(x)
  optimiser(stats::nlm)
  put(paste0(key, ".stopped"), stopped)
  put(paste0(key, ".loglik"), m$loglik)
  put(paste0(key, ".eta"), m$etapar)
  put(paste0(key, ".se"), m$se.eta)
  table_of(paste0(key, ".W"), m$W)
}

data(VerbalAggression); data(MathExam14W); data(ConspiracistBeliefs2016)
# LLRA: a group of persons meets only its own virtual items, time by time
llra <- function(key, x, ...) {
  optimiser(polished)
  m <- quietly(LLRA(x, ...))
  optimiser(stats::nlm)
  put(paste0(key, ".stopped"), stopped)
  table_of(paste0(key, ".W"), m$W)
  x <- m$X
  wide <- matrix(NA, nrow(x), ncol(x) * m$ngroups)
  for (t in seq_len(ncol(x)))
    wide[cbind(seq_len(nrow(x)), (t - 1) * m$ngroups + m$groupvec)] <- x[, t]
  table_of(key, wide)
  put(paste0(key, ".loglik"), m$loglik)
  put(paste0(key, ".eta"), m$etapar)
  put(paste0(key, ".se"), m$se.eta)
}
quietly <- function(x) suppressWarnings({sink(tempfile()); on.exit(sink()); x})
names_of <- function(fast, slow) if (quick) fast else slow

for (name in names_of(c("raschdat2", "raschdat3", "raschdat4", "lltmdat2"),
                      c("raschdat1", "xmpl", "lltmdat1")))
  erm(paste0("erm.rasch.", name), as.matrix(get(name)), RM, name %in% c("raschdat3", "xmpl"))
if (quick) {
  psycho("psychotools.rasch.VerbalAggression", as.matrix(VerbalAggression$resp2), raschmodel)
  psycho("psychotools.pcm.VerbalAggression", as.matrix(VerbalAggression$resp), pcmodel)
  psycho("psychotools.rsm.VerbalAggression", as.matrix(VerbalAggression$resp), rsmodel)
  psycho("psychotools.rasch.MathExam14W", as.matrix(MathExam14W$solved), raschmodel)
  psycho("psychotools.pcm.MathExam14W", as.matrix(MathExam14W$credits), pcmodel)
  psycho("psychotools.pcm.ConspiracistBeliefs", as.matrix(ConspiracistBeliefs2016$resp), pcmodel)
  psycho("psychotools.rsm.ConspiracistBeliefs", as.matrix(ConspiracistBeliefs2016$resp), rsmodel)
  data(Sim3PL); data(YouthGratitude)
  for (name in c("raschdat1", "raschdat3", "xmpl", "lltmdat1", "lltmdat2"))
    psycho(paste0("psychotools.rasch.", name), as.matrix(get(name)), raschmodel)
  for (name in c("resp", "resp2"))
    psycho(paste0("psychotools.rasch.Sim3PL_", name), as.matrix(Sim3PL[[name]]), raschmodel)
  for (name in c("pcmdat", "pcmdat2"))
    psycho(paste0("psychotools.pcm.", name), as.matrix(get(name)), pcmodel)
  for (name in c("rsmdat", "pcmdat2"))
    psycho(paste0("psychotools.rsm.", name), as.matrix(get(name)), rsmodel)
  # imputed answers are not whole numbers; some categories are used by nobody
  for (name in c("gq6", "gac", "losd", "sa_", "ao_")) {
    x <- as.matrix(YouthGratitude[, grep(name, names(YouthGratitude))])
    x <- x[rowSums(x != round(x)) == 0, ]
    psycho(paste0("psychotools.pcm.YouthGratitude_", sub("_", "", name)), x,
           function(...) pcmodel(..., nullcats = "downcode"))
  }
  for (name in c("pcmdat", "pcmdat2"))
    erm(paste0("erm.pcm.", name), as.matrix(get(name)), PCM, name == "pcmdat2")
  for (name in c("rsmdat", "pcmdat2"))
    erm(paste0("erm.rsm.", name), as.matrix(get(name)), RSM)
  linear("erm.linear.LPCM", as.matrix(lpcmdat), function(x) LPCM(x, mpoints = 2))
  linear("erm.linear.LRSM", as.matrix(lrsmdat), function(x) LRSM(x, mpoints = 2))
  group <- rep(c("TG", "CG"), each = 30)
  llra("erm.linear.LLRA3", llradat3, mpoints = 2, groups = group)
} else {
  psycho("psychotools.rasch.xmplbig", as.matrix(xmplbig), raschmodel)
  erm("erm.rasch.VerbalAggression", as.matrix(VerbalAggression$resp2), RM)
  erm("erm.rasch.MathExam14W", as.matrix(MathExam14W$solved), RM)
  linear("erm.linear.LLTM", as.matrix(lltmdat1), function(x) LLTM(x, mpoints = 2))
  llra("erm.linear.LLRA1", llraDat1[, 1:20], mpoints = 4, groups = llraDat1$groups)
  llra("erm.linear.LLRA2", llraDat2[, 1:20], mpoints = 4, groups = llraDat2[, 21])
}
