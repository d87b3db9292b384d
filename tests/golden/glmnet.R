# Writes glmnet.json: what R's glmnet says about one small fixed regression.
#   Rscript tests/golden/glmnet.R          (needs the R packages glmnet and jsonlite)
suppressPackageStartupMessages({
  library(glmnet)
  library(jsonlite)
})

set.seed(1)
n <- 47
p <- 6
X <- round(matrix(rnorm(n * p), n, p) %*% diag(c(1, 2, 0.5, 1, 1, 3)), 3)
y <- round(drop(X %*% c(1.5, -0.5, 1, 0, 0, 0.05)) + 3 + 2.5 * rnorm(n), 3)
fit <- function(lambda, alpha) {
  model <- glmnet(X, y, alpha = alpha, lambda = lambda, standardize = FALSE, thresh = 1e-14, maxit = 1e7)
  list(lambda = lambda, intercept = unname(model$a0), coefficients = t(unname(as.matrix(model$beta))))
}

# Folds of 14, 5, 11, 8 and 9 rows: unequal, so that the weights of the means matter.
foldid <- sample(rep(1:5, c(14, 5, 11, 8, 9)))
cross_validate <- function(lambda, alpha) {
  cv <- cv.glmnet(X, y, alpha = alpha, lambda = lambda, foldid = foldid, keep = TRUE,
                  standardize = FALSE, thresh = 1e-14, maxit = 1e7)
  errors <- (y - cv$fit.preval[, seq_along(lambda)])^2
  list(
    lambda = cv$lambda,
    fold_errors = unname(as.matrix(aggregate(errors, list(foldid), mean)[, -1])),
    cvm = unname(cv$cvm),
    cvsd = unname(cv$cvsd),
    lambda_min = cv$lambda.min,
    lambda_1se = cv$lambda.1se
  )
}

path <- 10^seq(1, -2, length.out = 25)
golden <- list(
  made_by = paste0(R.version.string, ", glmnet ", packageVersion("glmnet")),
  X = X,
  y = y,
  ridge = fit(c(5, 1, 0.1), alpha = 0),
  lasso = fit(c(1, 0.5, 0.1), alpha = 1),
  foldid = foldid,
  fold_sizes = as.vector(table(foldid)),
  cv_ridge = cross_validate(path * 5, alpha = 0),
  cv_lasso = cross_validate(path[path < 3], alpha = 1)
)
script <- sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))
write(toJSON(golden, digits = NA, auto_unbox = TRUE), file.path(dirname(script), "glmnet.json"))
