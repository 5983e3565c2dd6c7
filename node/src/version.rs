//! What the proxy calls itself.

/// Name and version, as in the `Server` header, the log and the error pages.
pub const NAME: &str = concat!("dysvr/", env!("CARGO_PKG_VERSION"));

/// What the program is called.
pub const PROGRAM: &str = "dysvr-proxy";

/// The modules of nginx's default build that are not here: tools read this off `-V`.
const WITHOUT: &[&str] = &[
    "charset",
    "gzip",
    "ssi",
    "userid",
    "access",
    "auth_basic",
    "mirror",
    "autoindex",
    "geo",
    "split_clients",
    "referer",
    "fastcgi",
    "uwsgi",
    "scgi",
    "grpc",
    "memcached",
    "limit_conn",
    "limit_req",
    "empty_gif",
    "browser",
    "upstream_hash",
    "upstream_ip_hash",
    "upstream_least_conn",
    "upstream_random",
    "upstream_zone",
];

/// The text of `-v`, and of `-V` with `configure`, in the form that nginx's tools read.
pub fn text(configure: bool) -> String {
    let mut text = format!("nginx version: {NAME}\n");
    if configure {
        text.push_str(
            "built with hyper, rustls and PCRE2\nTLS SNI support enabled\nconfigure arguments: --with-http_ssl_module",
        );
        for module in WITHOUT {
            text.push_str(" --without-http_");
            text.push_str(module);
            text.push_str("_module");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_in_nginx_s_form() {
        assert!(super::text(false).starts_with("nginx version: dysvr/"));
        assert!(super::text(true).contains(" --without-http_gzip_module "));
    }
}
