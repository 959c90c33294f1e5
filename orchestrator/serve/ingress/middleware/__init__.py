"""What every request passes: authentication, admission, drain, access log, metrics."""
