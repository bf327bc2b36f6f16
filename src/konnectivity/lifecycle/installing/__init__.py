"""Install and uninstall by hand."""
