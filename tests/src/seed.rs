//! The seed's own files, byte for byte, with two differences: the origin is a local one, and the lines and locations of
//! srcache and Lua are left out (their modules get an issue of their own).

/// The vhost's server name.
pub const HOST: &str = "lucas-sni-protection-domain-first.qcloudwzgj.com";
/// Its `vsvc_id`.
pub const VSVC_ID: u64 = 131_942;
/// Its upstream.
pub const UPS_ID: &str = "1074728";
/// The task's number.
pub const TASK_ID: u64 = 25_208;

/// Where the vhost's file is, below conf/.
pub const VHOST_FILE: &str = "auto_vhost/lucas-sni-protection-domain-first.qcloudwzgj.com_80.conf";
/// Where the upstream's file is, below conf/.
pub const UPSTREAM_FILE: &str =
    "auto_upstream/lucas-sni-protection-domain-first.qcloudwzgj.com_80.1074728.upstream.conf";
/// What the vhosts share; the seed names it and does not hold it.
pub const COMMON_FILE: &str = "common_location.conf";

/// The vhost.
pub const VHOST: &str =
    include_str!("../fixtures/seed/auto_vhost/lucas-sni-protection-domain-first.qcloudwzgj.com_80.conf");
/// The upstream.
pub const UPSTREAM: &str = include_str!(
    "../fixtures/seed/auto_upstream/lucas-sni-protection-domain-first.qcloudwzgj.com_80.1074728.upstream.conf"
);
/// The shared include.
pub const COMMON: &str = include_str!("../fixtures/seed/common_location.conf");
/// The task file.
pub const TASK_LINE: &str = include_str!("../fixtures/seed/dy_update_server.conf");
/// The task's configuration, `dysvr_25208.conf`.
pub const TASK_CONF: &str = include_str!("../fixtures/seed/dysvr_25208.conf");

/// Where the original kept its configuration and its task files, in [`TASK_LINE`] and [`TASK_CONF`].
pub const CONF_DIRECTORY: &str = "/usr/local/services/nginx_install-1.0/conf";
/// Where the original kept its task files.
pub const TASK_DIRECTORY: &str = "/usr/local/services/nginx_install-1.0/l7_nginx/common";

/// The origin's address in [`UPSTREAM`].
const ORIGIN: &str = "127.0.0.1:18080";

/// The upstream, with an origin of the test.
pub fn upstream(origin: impl std::fmt::Display) -> String {
    UPSTREAM.replace(ORIGIN, &origin.to_string())
}

/// The vhost on a free port of this machine instead of 80.
pub fn vhost_on(port: u16) -> String {
    let v6 = if crate::ports::has_ipv6() { format!("    listen       [::]:{port};\n") } else { String::new() };
    VHOST.replace("    listen       80;\n    listen       [::]:80;\n", &format!("    listen       {port};\n{v6}"))
}

/// The vhost for a fleet whose nodes are all on this machine: the files are the same on each node, so the addresses to
/// listen on come from the node's own `listen.d/`.
pub fn vhost_of_fleet() -> String {
    VHOST.replace("    listen       80;\n    listen       [::]:80;\n", "    include listen.d/*.conf;\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_there() {
        assert!(upstream("127.0.0.1:1").contains("server 127.0.0.1:1 max_fails=3"));
        assert!(vhost_on(8123).contains("listen       8123;"));
        assert!(!vhost_of_fleet().contains("listen  "));
        assert!(TASK_LINE.contains(TASK_DIRECTORY) && TASK_CONF.contains(CONF_DIRECTORY));
    }
}
