//! Bundles as a controller checks them.

use dysvr_conf::bundle::{Assumptions, Bundle, Checked, validate_bundle};
use dysvr_conf::problem::Problems;

fn check(files: &[(&str, &str)]) -> Result<Checked, Problems> {
    let mut bundle = Bundle::default();
    for (name, text) in files {
        bundle.insert(name.as_bytes(), text.as_bytes()).unwrap();
    }
    validate_bundle(&bundle, &Assumptions::default())
}

fn refused(files: &[(&str, &str)]) -> String {
    check(files).unwrap_err().to_string()
}

const VHOST: &str = "include auto_upstream/a.1.upstream.conf;\n# a\nserver {\n  vsvc_id 5;\n  listen 80;\n  \
                     listen [::]:80;\n  server_name A.com .b.com ~^c;\n  include common.conf;\n  location / { \
                     proxy_pass http://1; }\n}\n";
const UPSTREAM: &str = "upstream 1 {\n  server 10.0.0.1:80 weight=2;\n  server origin.example.com;\n}\n";

#[test]
fn a_bundle_is_summed_up() {
    let files = [
        ("auto_vhost/a.conf", VHOST),
        ("auto_upstream/a.1.upstream.conf", UPSTREAM),
        ("common.conf", "location /x { return 404; }\n"),
        ("auto_vhost/b.conf", "server { listen 81; location / { proxy_pass http://1; } }"),
        ("elsewhere/c.conf", "server { }"),
    ];
    let checked = check(&files).unwrap();
    let [a, b] = &checked.vhosts[..] else { panic!() };
    assert_eq!(a.vsvc_id.map(|id| id.0), Some(5));
    assert_eq!((&*a.file, a.line), ("auto_vhost/a.conf", 3));
    assert_eq!(a.server_names, ["a.com", "b.com", "*.b.com", "~^c"]);
    assert_eq!(a.listens, ["0.0.0.0:80", "[::]:80"]);
    assert_eq!((&a.ups_ids[..], &a.ups_defined[..]), (&["1".to_owned()][..], &["1".to_owned()][..]));
    assert_eq!(a.files, ["auto_upstream/a.1.upstream.conf", "auto_vhost/a.conf", "common.conf"]);
    assert_eq!((b.vsvc_id, &b.ups_ids[..], b.ups_defined.len()), (None, &["1".to_owned()][..], 0));
    assert_eq!(b.files, ["auto_vhost/b.conf"]);
    let [upstream] = &checked.upstreams[..] else { panic!() };
    assert_eq!(upstream.peers, ["10.0.0.1:80", "origin.example.com"]);
    assert_eq!((&*upstream.file, upstream.line), ("auto_upstream/a.1.upstream.conf", 1));
    assert_eq!(checked.unreached, ["elsewhere/c.conf"]);
}

#[test]
fn all_problems_are_told_with_their_files() {
    assert_eq!(
        refused(&[
            ("auto_vhost/a.conf", "server {\n  foo;\n  proxy_pass x;\n  location / { proxy_pass http://77; }\n}\n"),
            ("auto_vhost/b.conf", "include gone.conf;\nserver { listen 80 http2; }\n}\n"),
        ]),
        "unknown directive \"foo\" in auto_vhost/a.conf:2\n\
         \"proxy_pass\" directive is not allowed here in auto_vhost/a.conf:3\n\
         host not found in upstream \"77\" in auto_vhost/a.conf:4\n\
         open() \"gone.conf\" failed (2: No such file or directory) in auto_vhost/b.conf:1\n\
         invalid parameter \"http2\", it is not supported in auto_vhost/b.conf:2\n\
         unexpected \"}\" in auto_vhost/b.conf:3"
    );
    assert_eq!(
        refused(&[
            ("auto_vhost/a.conf", "server { vsvc_id 5; }"),
            ("auto_vhost/b.conf", "\nserver { vsvc_id 5; server_name b; }")
        ]),
        "duplicate vsvc_id 5, it is already used in auto_vhost/a.conf:1 in auto_vhost/b.conf:2"
    );
}

#[test]
fn what_nodes_have_can_be_assumed() {
    let mut bundle = Bundle::default();
    bundle.insert(b"auto_vhost/a.conf", &b"server { access_log logs/a main; return 200 $m; }"[..]).unwrap();
    assert!(validate_bundle(&bundle, &Assumptions::default()).is_err());
    let assumptions =
        Assumptions { http: "log_format main $host; map $uri $m { default 1; }".into(), ..Assumptions::default() };
    validate_bundle(&bundle, &assumptions).unwrap();
}
