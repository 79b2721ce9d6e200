"""HTML pages, drawings and the server of `locate`."""
