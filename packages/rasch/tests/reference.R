# Prints "key number number ..." lines; every fit is made by eRm or psychotools on bundled data.
# Rscript reference.R quick|slow|large: the fits that take R seconds, half a minute, or six minutes
part <- commandArgs(TRUE)[1]
quick <- part == "quick"
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
  put(paste0(key, ".person"), personpar(m, vcov = FALSE))
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
central_hessian <- function(f, p, h = 1e-3) {
  at <- function(i, j, h) f(p + h * (seq_along(p) == i) + h * (seq_along(p) == j))
  here <- f(p)
  one <- sapply(seq_along(p), function(i) at(i, 0, h) + at(i, 0, -h))
  out <- matrix(0, length(p), length(p))
  for (i in seq_along(p)) for (j in seq_len(i))
    out[i, j] <- out[j, i] <- (at(i, j, h) + at(i, j, -h) - one[i] - one[j] + 2 * here) / (2 * h^2)
  out
}

quietly <- function(x) suppressWarnings({sink(tempfile()); on.exit(sink()); x})
# what eRm cannot compute comes with its own message
attempt <- function(key, value) tryCatch(value, error = function(e) {
  cat(paste0(key, ".failed"), gsub("\n", " ", conditionMessage(e)), "\n")
  NULL
})

erm <- function(key, x, fit, splits = c("median", "mean")) {
  table_of(key, x)
  optimiser(polished)
  m <- fit(x)
  put(paste0(key, ".loglik"), m$loglik)
  put(paste0(key, ".beta"), -m$betapar)
  put(paste0(key, ".se"), m$se.beta)
  tests_of(key, m, splits)
  persons_of(key, m)
  optimiser(stats::nlm)
  put(paste0(key, ".information"), sapply(item_info(m, theta = -2:2), function(i) i$i.info))
  l <- attempt(paste0(key, ".mloef"), MLoef(m))
  if (!is.null(l)) put(paste0(key, ".mloef"), unlist(l[c("LR", "df")]))
}

# the two groups are those of the likelihood ratio test, which names its persons and items
tests_of <- function(key, m, splits) for (split in splits) {
  l <- quietly(LRtest(m, splitcr = split, se = FALSE))
  put(paste0(key, ".lr_", split), c(l$LR, l$df))
  put(paste0(key, ".high_", split), match(rownames(l$X.list[[2]]), rownames(m$X)))
  put(paste0(key, ".items_", split), match(colnames(l$X.list[[2]]), colnames(m$X)))
  put(paste0(key, ".reach_", split), max(abs(unlist(l$betalist))))
  w <- attempt(paste0(key, ".wald_", split), quietly(Waldtest(m, splitcr = split)))
  if (!is.null(w)) put(paste0(key, ".wald_", split), w$coef.table[, 1])
}

persons_of <- function(key, m) {
  p <- quietly(person.parameter(m))
  known <- p$theta.table[!p$theta.table$Interpolated & !is.na(p$theta.table[[1]]), ]
  put(paste0(key, ".person"), match(rownames(known), rownames(m$X)))
  put(paste0(key, ".theta"), known[[1]])
  se <- do.call(c, unname(p$se.theta))
  put(paste0(key, ".theta_se"), se[rownames(known)])
  put(paste0(key, ".separation"), SepRel(p)$sep.rel)
  f <- quietly(itemfit(p))
  put(paste0(key, ".outfit"), f$i.outfitMSQ)
  put(paste0(key, ".infit"), f$i.infitMSQ)
  put(paste0(key, ".outfit_t"), f$i.outfitZ)
  put(paste0(key, ".infit_t"), f$i.infitZ)
  f <- personfit(p)
  put(paste0(key, ".p_row"), match(names(f$p.outfitMSQ), rownames(m$X)))
  put(paste0(key, ".p_outfit"), f$p.outfitMSQ)
  put(paste0(key, ".p_infit"), f$p.infitMSQ)
  put(paste0(key, ".p_outfit_t"), f$p.outfitZ)
  put(paste0(key, ".p_infit_t"), f$p.infitZ)
}

linear <- function(key, x, fit) {
  table_of(key, x)
  optimiser(polished)
  m <- fit(x)
  put(paste0(key, ".stopped"), stopped)
  put(paste0(key, ".loglik"), m$loglik)
  put(paste0(key, ".eta"), m$etapar)
  put(paste0(key, ".se"), m$se.eta)
  table_of(paste0(key, ".W"), m$W)
  persons_of(key, m)
  optimiser(stats::nlm)
}

if (part == "large") {
  erm("erm.rasch.xmplbig", as.matrix(xmplbig), RM, splits = "median")
  quit()
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
  attempt(paste0(key, ".person"), person.parameter(m))
}
names_of <- function(fast, slow) if (quick) fast else slow


# simulated by eRm and psychotools: what fits, what does not, and answers missing by design
set.seed(4)
sim_rasch <- sim.rasch(150, 8, seed = 1)
sim_2pl <- sim.2pl(150, 6, 0.5, seed = 2)
sim_xdim <- sim.xdim(200, 10, Sigma = matrix(c(1, 0.3, 0.3, 1), 2), weightmat = diag(2)[rep(1:2, 5), ],
                     seed = 3)
sim_locdep <- sim.locdep(200, 10, it.cor = 0.5, seed = 4)
sim_booklets <- sim.rasch(150, 6, seed = 5)
sim_booklets[1:75, 5:6] <- NA
sim_booklets[76:150, 1:2] <- NA
sim_pcm <- rpcm(rnorm(200), list(c(-1, 0), c(-0.5, 0.5, 1), 0, c(0, 0.3)), return_setting = FALSE)
sim_rsm <- rrsm(rnorm(200), c(-1, 0, 0.5, 1), c(0, 0.4), return_setting = FALSE)
sim_rsm_gaps <- sim_rsm
sim_rsm_gaps[1:60, 1] <- NA
sim_pcm_gaps <- sim_pcm
sim_pcm_gaps[1:60, 1] <- NA

for (name in names_of(c("raschdat2", "raschdat3", "lltmdat2", "sim_2pl", "sim_booklets"),
                      c("raschdat1", "raschdat4", "xmpl", "sim_rasch", "sim_xdim", "sim_locdep")))
  erm(paste0("erm.rasch.", name), as.matrix(get(name)), RM)
for (name in names_of(c("pcmdat2", "llradat3", "sim_pcm"), c("pcmdat", "rsmdat", "sim_rsm_gaps")))
  erm(paste0("erm.pcm.", name), as.matrix(get(name)), PCM)
for (name in names_of(c("rsmdat", "pcmdat2", "sim_rsm"), "sim_rsm_gaps"))
  erm(paste0("erm.rsm.", name), as.matrix(get(name)), RSM)
if (quick) {
  psycho("psychotools.rasch.VerbalAggression", as.matrix(VerbalAggression$resp2), raschmodel)
  psycho("psychotools.pcm.VerbalAggression", as.matrix(VerbalAggression$resp), pcmodel)
  psycho("psychotools.rsm.VerbalAggression", as.matrix(VerbalAggression$resp), rsmodel)
  psycho("psychotools.rasch.MathExam14W", as.matrix(MathExam14W$solved), raschmodel)
  psycho("psychotools.pcm.MathExam14W", as.matrix(MathExam14W$credits), pcmodel)
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
  table_of("erm.pcm.sim_pcm_gaps", sim_pcm_gaps)
  m <- PCM(sim_pcm_gaps)
  put("erm.pcm.sim_pcm_gaps.loglik", m$loglik)
  put("erm.pcm.sim_pcm_gaps.beta", -m$betapar)
  for (name in c("pcmdat", "llradat3")) {
    table_of(paste0("erm.rsm.", name), as.matrix(get(name)))
    attempt(paste0("erm.rsm.", name), RSM(as.matrix(get(name))))
  }
  for (pair in list(c("raschdat1", "lltmdat1"), c("rsmdat", "lpcmdat"), c("rsmdat", "lrsmdat")))
    put(paste0("same.", pair[2]), all(as.matrix(get(pair[1])) == as.matrix(get(pair[2]))))
  linear("erm.linear.LPCM", as.matrix(lpcmdat), function(x) LPCM(x, mpoints = 2))
  linear("erm.linear.LRSM", as.matrix(lrsmdat), function(x) LRSM(x, mpoints = 2))
  group <- rep(c("TG", "CG"), each = 30)
  llra("erm.linear.LLRA3", llradat3, mpoints = 2, groups = group)
  # the covariance of three items answered alone fails; the estimates do not need it
  attempt("psychotools.rasch.raschdat4", raschmodel(as.matrix(raschdat4)))
  for (name in c("raschdat2", "raschdat4", "sim_booklets")) {
    x <- as.matrix(get(name))
    table_of(paste0("psychotools.gaps.", name), x)
    m <- do.call(raschmodel, c(list(x), tight, hessian = FALSE))
    put(paste0("psychotools.gaps.", name, ".loglik"), m$loglik)
    put(paste0("psychotools.gaps.", name, ".threshold"), unlist(coef(threshpar(m, vcov = FALSE))))
  }
} else {
  psycho("psychotools.pcm.ConspiracistBeliefs", as.matrix(ConspiracistBeliefs2016$resp), pcmodel)
  psycho("psychotools.rsm.ConspiracistBeliefs", as.matrix(ConspiracistBeliefs2016$resp), rsmodel)
  psycho("psychotools.rasch.xmplbig", as.matrix(xmplbig), raschmodel)
  erm("erm.rasch.VerbalAggression", as.matrix(VerbalAggression$resp2), RM)
  erm("erm.rasch.MathExam14W", as.matrix(MathExam14W$solved), RM)
  linear("erm.linear.LLTM", as.matrix(lltmdat1), function(x) LLTM(x, mpoints = 2))
  llra("erm.linear.LLRA1", llraDat1[, 1:20], mpoints = 4, groups = llraDat1$groups)
  llra("erm.linear.LLRA2", llraDat2[, 1:20], mpoints = 4, groups = llraDat2[, 21])
}
