"""What wraps every HTTP route: access log, authentication, security headers."""
