# Prints "key number number ..." lines: R's own tests of item bias, psychotools's Gini anchor.
suppressMessages(library(psychotools))
put <- function(key, x) cat(key, format(as.numeric(x), digits = 17, trim = TRUE), "\n")
data(VerbalAggression)
x <- as.matrix(VerbalAggression$resp2)
g <- VerbalAggression$gender
put("group", as.integer(g) - 1)
put("data", t(x))
raw <- rowSums(x)
for (i in 1:ncol(x)) {
  strata <- table(x[, i], g, raw)
  strata <- strata[, , apply(strata, 3, sum) > 1]
  m <- mantelhaen.test(strata)
  put(paste0("mh.", i), c(m$statistic, m$estimate, m$conf.int))
  d <- data.frame(y = x[, i], s = raw, g = as.integer(g) - 1)
  fits <- lapply(c(y ~ s, y ~ s + g, y ~ s * g), glm, binomial, d)
  dev <- sapply(fits, deviance)
  se <- summary(fits[[2]])$coefficients["g", "Std. Error"]
  put(paste0("logistic.", i), c(dev[1] - dev[2], dev[1] - dev[3], coef(fits[[2]])["g"], se))
}
tight <- function(rows) raschmodel(x[rows, 1:12], reltol = 1e-15, maxit = 1000L)
fits <- lapply(levels(g), function(level) tight(g == level))
put("gini", anchor(fits[[1]], fits[[2]], class = "constant", select = "Gini", length = 1)$criteria)
# the likelihood ratio test of one item: eRm on the item split into one virtual item a group
suppressMessages(library(eRm))
for (i in 1:2) {
  split <- cbind(x[, 1:8], NA)
  split[g == "male", 9] <- split[g == "male", i]
  split[g == "male", i] <- NA
  put(paste0("split.", i), c(RM(x[, 1:8])$loglik, RM(split)$loglik))
}
l <- LRtest(RM(x[, 1:8]), splitcr = "all.r", se = FALSE)
put("every_score", c(l$LR, l$df))
