//! Clients that do not go on with their handshake: each is closed a minute after it came (nginx's `client_header_timeout`),
//! wherever it stands and whatever it still sends. The clock is the test's.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::LoadOptions;
use dysvr_conf::model::ListenAddr;
use dysvr_conf::source::Memory;
use dysvr_node::cycle::{Cycle, load};
use dysvr_node::http::{Context, Stream, serve};
use dysvr_node::log::{Log, set_current};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

const CONF: &str = "/c/nginx.conf";
const LIMIT: Duration = Duration::from_secs(60);

fn cycle() -> Rc<Cycle> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut source = Memory::default();
    let text = "events {} http { access_log off; server { listen 127.0.0.1:443 ssl; ssl_certificate a.pem; \
                ssl_certificate_key a.key; return 204; } }";
    source.insert(CONF, text);
    source.insert("/c/a.pem", certificate.pem());
    source.insert("/c/a.key", key.serialize_pem());
    let options = LoadOptions { conf: CONF.into(), prefix: "/tmp".into(), globals: String::new(), privileged: true };
    let conf = load(&options, &mut source, &mut Interner::default()).unwrap_or_else(|problems| panic!("{problems}"));
    Rc::new(Cycle::load(conf).unwrap())
}

/// What a client says first.
fn hello() -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "a.example".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn who_does_not_go_on_is_closed() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build_local(Default::default()).unwrap();
    set_current(Log::nowhere());
    let hello = hello();
    runtime.block_on(async {
        let cycle = cycle();
        let listener = cycle.listener(&ListenAddr::Inet("127.0.0.1:443".parse().unwrap())).unwrap();
        let context = Context::new(cycle, "/tmp".into(), Default::default());
        for (what, first, trickle) in [
            ("silent", &hello[..0], false),
            ("within the head of a record", &hello[..3], false),
            ("within the hello", &hello[..100], false),
            ("after the hello", &hello[..], false),
            ("a byte every few seconds", &hello[..3], true),
        ] {
            let (mut client, server) = UnixStream::pair().unwrap();
            let served = serve(Rc::clone(&context), Stream::Unix(server), None, Rc::clone(&listener));
            let served = tokio::task::spawn_local(served);
            let begin = Instant::now();
            client.write_all(first).await.unwrap();
            if trickle {
                for byte in &hello[first.len()..] {
                    tokio::time::sleep(Duration::from_secs(7)).await;
                    if client.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                }
            }
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            // All that a connection holds ends with its task.
            served.await.unwrap();
            let after = begin.elapsed();
            assert!(after >= LIMIT && after < LIMIT + Duration::from_secs(8), "{what}: after {after:?}");
            assert_eq!(answer.is_empty(), first.len() < hello.len(), "{what}");
        }
    });
}
