//! `ngx_http_ssl_module`: the handshake, between accept and the first request.
//!
//! The name that the client asks for picks the vhost as `Host` does, among those that are there at that moment; a vhost
//! without a certificate has the default server's. What is agreed on holds for the connection's life, whatever happens
//! to the vhost.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::server::Acceptor;
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use tokio_rustls::LazyConfigAcceptor;

use super::client::{Client, HEADER_TIMEOUT};
use super::host;
use super::stream::Stream;
use crate::log::Level;
use crate::ssl::cipher_name;

/// What a handshake has agreed on.
pub(super) struct Agreed {
    /// `$ssl_protocol`.
    pub protocol: &'static str,
    /// `$ssl_cipher`.
    pub cipher: &'static str,
    /// `$ssl_server_name`.
    pub server_name: Option<Box<str>>,
    /// `$ssl_session_reused`.
    pub reused: bool,
}

impl Agreed {
    fn of(session: &ServerConnection) -> Self {
        Self {
            protocol: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "",
            },
            cipher: session.negotiated_cipher_suite().map_or("", |suite| cipher_name(suite.suite())),
            server_name: session.server_name().map(Box::from),
            reused: session.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// Shakes hands. Gives the stream to go on with: the plain one when the client speaks plain HTTP, which is answered with
/// 400. `None`: it has failed, and that is in the log.
pub(super) async fn handshake(client: &Rc<Client>, stream: Stream) -> Option<Stream> {
    match tokio::time::timeout(HEADER_TIMEOUT, shake(client, stream)).await {
        Ok(stream) => stream,
        Err(_) => {
            client.log(Level::Info, format_args!("client timed out (110: Connection timed out) while SSL handshaking"));
            None
        }
    }
}

async fn shake(client: &Rc<Client>, stream: Stream) -> Option<Stream> {
    match poll_fn(|cx| stream.poll_peek(cx)).await {
        // The record of a handshake, or what SSLv2 began with.
        Ok(Some(0x16 | 0x80..)) => {}
        Ok(Some(_)) => {
            client.plain_on_ssl.set(true);
            return Some(stream);
        }
        Ok(None) => {
            client.log(Level::Info, format_args!("client closed connection while SSL handshaking"));
            return None;
        }
        Err(error) => return failed(client, &error),
    }
    let start = match LazyConfigAcceptor::new(Acceptor::default(), stream).await {
        Ok(start) => start,
        Err(error) => return failed(client, &error),
    };
    let config = config(client, start.client_hello().server_name());
    let Some(config) = config else {
        client.log(Level::Info, format_args!("no vhost with a certificate is left while SSL handshaking"));
        return None;
    };
    match start.into_stream(config).await {
        Ok(stream) => {
            let _ = client.tls.set(Box::new(Agreed::of(stream.get_ref().1)));
            Some(Stream::tls(stream))
        }
        Err(error) => failed(client, &error),
    }
}

/// The configuration of the vhost of a name, as it is now.
fn config(client: &Client, name: Option<&str>) -> Option<Arc<ServerConfig>> {
    let name = name.and_then(|name| host::normalize(name.as_bytes()));
    let (listener, cycle) = (client.listener(), &client.ctx.cycle);
    let found = listener.find(cycle, name.as_deref().unwrap_or_default())?;
    found.vhost.tls.clone().or_else(|| cycle.compile(&*listener.default_server()?)?.tls.clone())
}

fn failed(client: &Client, error: &io::Error) -> Option<Stream> {
    client.ctx.clock.tick();
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            client.log(Level::Info, format_args!("peer closed connection in SSL handshake while SSL handshaking"));
        }
        _ if error.raw_os_error().is_some() => {
            let error = crate::os::errno(error);
            client.log(
                Level::Info,
                format_args!("peer closed connection in SSL handshake ({error}) while SSL handshaking"),
            );
        }
        _ => client.log(Level::Info, format_args!("SSL_do_handshake() failed (SSL: {error}) while SSL handshaking")),
    }
    None
}
