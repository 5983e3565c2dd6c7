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
fn certificates_are_part_of_a_bundle_and_checked_with_it() {
    let made = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let ((certificate, key), (_, other)) = (made("a.example"), made("b.example"));
    let vhost = "server {\n  listen 443 ssl;\n  ssl_certificate certs/a.pem;\n  ssl_certificate_key certs/a.key;\n}\n";
    let with = |files: &[(&str, &str)]| check(&[&[("auto_vhost/a.conf", vhost)], files].concat());
    let checked = with(&[("certs/a.pem", &certificate), ("certs/a.key", &key)]).unwrap();
    assert_eq!(checked.vhosts[0].files, ["auto_vhost/a.conf", "certs/a.key", "certs/a.pem"]);
    assert!(checked.unreached.is_empty());
    for (files, expected) in [
        (
            vec![("certs/a.pem", &certificate)],
            "cannot load certificate key \"certs/a.key\": BIO_new_file() failed (SSL: error:80000002:system library::No such \
             file or directory:calling fopen(certs/a.key, r) error:10000080:BIO routines::no such file) in auto_vhost/a.conf:4",
        ),
        (
            vec![("certs/a.pem", &certificate), ("certs/a.key", &other)],
            "SSL_CTX_use_PrivateKey(\"certs/a.key\") failed (SSL: error:05800074:x509 certificate routines::key values \
             mismatch): it is not the key of certificate \"certs/a.pem\" in auto_vhost/a.conf:4",
        ),
    ] {
        let files: Vec<(&str, &str)> = files.into_iter().map(|(name, text)| (name, text.as_str())).collect();
        assert_eq!(with(&files).unwrap_err().to_string(), expected);
    }
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
