//! Certificates and ciphers: the same files to nginx itself and to us, the same lists to OpenSSL and to us.
//!
//! Needs `/usr/sbin/nginx` (1.22) and `openssl`.

use std::path::Path;
use std::process::Command;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, load};
use dysvr_conf::model::Config;
use dysvr_conf::problem::Problems;
use dysvr_conf::recording::Recording;
use dysvr_conf::source::Memory;
use proptest::prelude::*;

/// Runs openssl; gives what it says.
fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().expect("openssl is needed");
    String::from_utf8(output.stdout).unwrap()
}

/// A certificate and its key.
fn ecdsa(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn rsa(dir: &Path) -> (String, String) {
    let (pem, key) = (dir.join("made.pem"), dir.join("made.key"));
    let (pem, key) = (pem.to_str().unwrap(), key.to_str().unwrap());
    openssl(&[
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", pem, "-days", "9", "-subj", "/CN=r",
    ]);
    (std::fs::read_to_string(pem).unwrap(), std::fs::read_to_string(key).unwrap())
}

fn files(dir: &Path) -> Vec<(&'static str, String)> {
    let ((rsa, rsa_key), (ec, ec_key), (_, other_key)) = (rsa(dir), ecdsa("e.example"), ecdsa("f.example"));
    let torn = format!("{}\n", &ec[..ec.len() / 2]);
    let chain = format!("{ec}{rsa}");
    vec![
        ("r.pem", rsa),
        ("r.key", rsa_key),
        ("e.pem", ec),
        ("e.key", ec_key),
        ("chain.pem", chain),
        ("other.key", other_key),
        ("junk.pem", "junk\n".to_owned()),
        ("empty.pem", String::new()),
        ("torn.pem", torn),
        ("48.key", "k".repeat(48)),
        ("80.key", "k".repeat(80)),
    ]
}

fn conf_of(text: &str) -> String {
    format!("events {{}}\nhttp {{\naccess_log off;\n{text}\n}}\n")
}

fn load_with(files: &[(&str, String)], text: &str) -> Result<Config, Problems> {
    let mut memory = Memory::default();
    files.iter().for_each(|(name, content)| memory.insert(format!("/p/{name}"), content));
    memory.insert("/p/nginx.conf", conf_of(text));
    let options =
        LoadOptions { conf: "/p/nginx.conf".into(), prefix: "/p".into(), globals: String::new(), privileged: true };
    load(&options, &mut memory, &mut Interner::default())
}

/// What nginx refuses a text with.
fn nginx(dir: &Path, text: &str) -> Option<String> {
    let conf = dir.join("nginx.conf");
    std::fs::write(&conf, conf_of(text)).unwrap();
    let pid = format!("pid {};", dir.join("pid").display());
    let output = Command::new("/usr/sbin/nginx")
        .args(["-t", "-e", "stderr", "-g", &pid, "-c"])
        .arg(&conf)
        .arg("-p")
        .arg(dir)
        .output()
        .expect("/usr/sbin/nginx is needed: make test installs it");
    let said = String::from_utf8_lossy(&output.stderr).replace(&format!("{}/", dir.display()), "/p/");
    let emerg = said.lines().find_map(|line| line.split_once("[emerg] ")).map(|(_, text)| {
        let ids = |ids: &str| ids.contains('#') && !ids.contains(' ');
        text.split_once(": ").filter(|(first, _)| ids(first)).map_or(text, |(_, text)| text).to_owned()
    });
    assert_eq!(emerg.is_none(), output.status.success(), "{said}");
    emerg
}

#[test]
fn pairs_are_accepted_and_refused_as_by_nginx() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("logs")).unwrap();
    let files = files(dir.path());
    for (name, content) in &files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let r = "ssl_certificate r.pem; ssl_certificate_key r.key;";
    let e = "ssl_certificate e.pem; ssl_certificate_key e.key;";
    let server = |text: &str| format!("server {{ listen 127.0.0.1:34569 ssl; {text} }}");
    let cases = [
        server(""),
        server("ssl_certificate r.pem;"),
        server("ssl_certificate_key r.key;"),
        "server { listen 127.0.0.1:34569; ssl_certificate r.pem; }".into(),
        server(r),
        server(e),
        server(&format!("{r} {e}")),
        server("ssl_certificate chain.pem; ssl_certificate_key e.key;"),
        server(&format!("{r} ssl_certificate e.pem;")),
        server("ssl_certificate e.pem; ssl_certificate_key other.key;"),
        server("ssl_certificate absent.pem; ssl_certificate_key e.key;"),
        server("ssl_certificate e.pem; ssl_certificate_key absent.key;"),
        server("ssl_certificate junk.pem; ssl_certificate_key e.key;"),
        server("ssl_certificate empty.pem; ssl_certificate_key e.key;"),
        server("ssl_certificate e.pem; ssl_certificate_key junk.pem;"),
        server("ssl_certificate e.pem; ssl_certificate_key e.pem;"),
        format!("ssl_certificate r.pem; {}", server("ssl_certificate_key r.key;")),
        format!("ssl_certificate r.pem; {}", server("")),
        format!("{r} {}", server("")),
        format!("{r} {}", server(e)),
        format!("{r} {}", server("ssl_ciphers foo;")),
        format!("{r} {}", server("ssl_ciphers HIGH:@FOO;")),
        format!("{r} {}", server("ssl_ciphers \"\";")),
        format!("{r} {}", server("ssl_ciphers HIGH:!aNULL:!MD5;")),
        format!("{r} {}", server("ssl_ecdh_curve X25519:prime256v1:P-384;")),
        format!("{r} {}", server("ssl_session_ticket_key 48.key; ssl_session_ticket_key 80.key;")),
        format!("{r} {}", server("ssl_session_ticket_key junk.pem;")),
        format!("{r} {}", server("ssl_session_ticket_key absent.key;")),
        // The default server's certificate stands in for the others'.
        format!("{} {}", server(&format!("server_name a; {r}")), server("server_name b;")),
        format!("{} {}", server("server_name b;"), server(&format!("server_name a; {r}"))),
        format!("{} server {{ listen 127.0.0.1:34569 ssl default_server; {r} }}", server("server_name b;")),
    ];
    let mut differences = String::new();
    for case in cases {
        let nginx = nginx(dir.path(), &case);
        let ours = load_with(&files, &case).err().map(|problems| problems.to_string());
        let agree = match (&nginx, &ours) {
            (None, None) => true,
            // We always give a place, that of the directive, and name both files of a mismatch.
            (Some(nginx), Some(ours)) => {
                ours.starts_with(nginx.split(" in /p/nginx.conf").next().unwrap_or(nginx))
                    && ours.contains(" in /p/nginx.conf:")
            }
            _ => false,
        };
        if !agree {
            differences += &format!("{case}\n  nginx: {nginx:?}\n  ours:  {ours:?}\n");
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn what_the_library_cannot_do_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let refused = |text: &str| load_with(&files, text).unwrap_err().0[0].text.clone();
    for (text, expected) in [
        (
            "ssl_protocols TLSv1 TLSv1.2;",
            "\"TLSv1\" in \"ssl_protocols\" directive is not supported, TLSv1.2 and TLSv1.3 are",
        ),
        ("ssl_protocols SSLv3;", "\"SSLv3\" in \"ssl_protocols\" directive is not supported, TLSv1.2 and TLSv1.3 are"),
        (
            "ssl_ciphers AES128-SHA;",
            "SSL_CTX_set_cipher_list(\"AES128-SHA\") failed (SSL: error:0A0000B9:SSL routines::no cipher match), \
             supported are ECDHE with AESGCM and with CHACHA20",
        ),
        (
            "ssl_ciphers HIGH:@SECLEVEL=3;",
            "SSL_CTX_set_cipher_list(\"HIGH:@SECLEVEL=3\") failed (a @SECLEVEL above 2 is not supported)",
        ),
        (
            "ssl_ecdh_curve P-521;",
            "SSL_CTX_set1_curves_list(\"P-521\") failed (group 'P-521' is not supported, X25519, prime256v1 and secp384r1 are)",
        ),
        (
            "ssl_certificate $a.pem;",
            "\"$a.pem\" in \"ssl_certificate\" directive is not supported: it must name a file",
        ),
        ("ssl_dhparam a;", "unknown directive \"ssl_dhparam\""),
        ("server { listen 1 ssl http2; }", "invalid parameter \"http2\", it is not supported"),
        (
            "server { listen 1; server_name a; }\nserver { listen 1 ssl; server_name b; vsvc_id 7; ssl_certificate e.pem; ssl_certificate_key e.key; }",
            "vhost \"b\" (vsvc_id 7) listens on 0.0.0.0:1 with \"ssl\", vhost \"a\" without in /p/nginx.conf:4: an address is TLS or plain",
        ),
        (
            "server { listen 1 ssl; ssl_certificate torn.pem; ssl_certificate_key e.key; }",
            "cannot load certificate \"/p/torn.pem\": PEM_read_bio_X509_AUX() failed (SSL: PEM routines::bad end line)",
        ),
        (
            "server { listen 1 ssl; ssl_certificate r.pem; ssl_certificate_key e.key; }",
            "SSL_CTX_use_PrivateKey(\"/p/e.key\") failed (SSL: error:05800074:x509 certificate routines::key values mismatch): \
             it is not the key of certificate \"/p/r.pem\"",
        ),
    ] {
        assert_eq!(refused(text), expected, "{text}");
    }
}

#[test]
fn contents_count_and_equal_ones_are_parsed_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = files(dir.path());
    let text = "server { listen 1 ssl; server_name a; ssl_certificate e.pem; ssl_certificate_key e.key; }\n\
                server { listen 1 ssl; server_name b; ssl_certificate copy.pem; ssl_certificate_key copy.key; }";
    let copy = |files: &mut Vec<(&str, String)>, from: &str, to: &'static str| {
        let content = files.iter().find(|(name, _)| *name == from).unwrap().1.clone();
        files.retain(|(name, _)| *name != to);
        files.push((to, content));
    };
    copy(&mut files, "e.pem", "copy.pem");
    copy(&mut files, "e.key", "copy.key");
    let vhosts = |files: &[(&str, String)]| load_with(files, text).unwrap().http.unwrap().vhosts;
    let before = vhosts(&files);
    let pair = |vhost: &dysvr_conf::model::Vhost| vhost.srv.ssl.pairs.clone().unwrap()[0].clone();
    assert!(std::sync::Arc::ptr_eq(&pair(&before[0]), &pair(&before[1])));
    copy(&mut files, "r.pem", "copy.pem");
    copy(&mut files, "r.key", "copy.key");
    let after = vhosts(&files);
    assert_eq!(before[0].digest, after[0].digest);
    assert_ne!(before[1].digest, after[1].digest, "a renewed certificate is a change");
}

#[test]
fn secrets_travel_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let mut memory = Memory::default();
    files.iter().for_each(|(name, content)| memory.insert(format!("/p/{name}"), content));
    memory.insert(
        "/p/nginx.conf",
        conf_of(
            "server { listen 1 ssl; ssl_certificate e.pem; ssl_certificate_key e.key; ssl_session_ticket_key 48.key; }",
        ),
    );
    let options =
        LoadOptions { conf: "/p/nginx.conf".into(), prefix: "/p".into(), globals: String::new(), privileged: true };
    let mut recording = Recording::new(memory);
    let config = load(&options, &mut recording, &mut Interner::default()).unwrap();
    let sources = recording.into_sources();
    assert_eq!(sources.files().count(), 1, "what -T prints");
    let travelled = dysvr_conf::source::Sources::decode(&sources.encode()).unwrap();
    load(&options, &mut travelled.replay(), &mut Interner::default()).unwrap();
    let key = &files.iter().find(|(name, _)| *name == "e.key").unwrap().1;
    let body: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    for shown in [format!("{config:?}"), format!("{sources:?}")] {
        assert!(!shown.contains(&body[..40]) && !shown.contains("kkkkkkkk") && !shown.contains("107, 107, 107"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cipher_lists_are_those_of_openssl(list in prop::collection::vec(prop::sample::select(vec![
        "HIGH", "ALL", "DEFAULT", "MEDIUM", "LOW", "ECDHE", "EECDH", "kEECDH", "kECDHE", "ECDSA", "aECDSA", "aRSA", "RSA", "kRSA", "DHE", "EDH",
        "AES", "AES128", "AES256", "AESGCM", "AESCCM", "CHACHA20", "FIPS", "SHA", "SHA1", "SHA256", "SHA384", "MD5", "RC4", "3DES", "DES", "CAMELLIA",
        "aNULL", "eNULL", "NULL", "EXPORT", "PSK", "SRP", "DSS", "TLSv1", "TLSv1.2", "SSLv3", "COMPLEMENTOFDEFAULT", "foo",
        "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305", "DHE-RSA-AES128-GCM-SHA256",
        "AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", ":", ":", ":", ":", ":", ":!", ":-", ":+", "+", "+", " ", ",", ":@STRENGTH:",
    ]), 1..12)) {
        let list = list.concat();
        // Whether a word is known decides whether an unfinished rule is an error; we know only those that select something.
        let unfinished = list.split('+').skip(1).any(|rest| !rest.starts_with(|mark: char| mark.is_ascii_alphanumeric()));
        prop_assume!(!unfinished);
        let theirs = openssl(&["ciphers", "-s", "-tls1_2", &list]);
        let theirs: Vec<&str> = theirs.trim().split(':').filter(|name| {
            let rest = name.strip_prefix("ECDHE-ECDSA-").or_else(|| name.strip_prefix("ECDHE-RSA-"));
            rest.is_some_and(|rest| matches!(rest, "AES128-GCM-SHA256" | "AES256-GCM-SHA384" | "CHACHA20-POLY1305"))
        }).collect();
        let config = load_with(&[], &format!("ssl_ciphers \"{list}\";"));
        let ours: Vec<&str> = config.iter().flat_map(|config| &config.http).flat_map(|http| http.srv.ssl.ciphers.iter().map(|cipher| cipher.name())).collect();
        prop_assert_eq!(ours, theirs, "{}", list);
    }
}
