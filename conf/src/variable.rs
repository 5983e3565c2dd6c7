//! Which variables there are, and how one is named once it is resolved.

use std::sync::Arc;

/// A reference to a variable, resolved when the configuration is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Variable {
    /// One of nginx's core, or ours.
    Builtin(Builtin),
    /// `$http_NAME`: a header of the request.
    RequestHeader(http::HeaderName),
    /// `$sent_http_NAME`: a header of the answer.
    SentHeader(http::HeaderName),
    /// `$upstream_http_NAME`: a header of the upstream's answer.
    UpstreamHeader(http::HeaderName),
    /// `$arg_NAME`.
    Argument(Arc<str>),
    /// `$cookie_NAME`.
    Cookie(Arc<str>),
    /// `$1` … `$9`: a group of the last expression that matched.
    Capture(u8),
    /// Set by this vhost (`set`, a named group): an index into [`crate::model::Outline::variables`].
    Slot(u16),
    /// The result of a `map`: an index into the maps of `http`.
    Map(u16),
    /// Used at http level (log_format, map) but set by vhosts: looked up by name in the vhost of the request.
    Named(Arc<str>),
}

macro_rules! builtins {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// The variables with a fixed name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Builtin { $(#[doc = concat!("`$", $name, "`")] $(#[$doc])* $variant),* }

        impl Builtin {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Without the `$`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The variable of a name.
            pub fn from_name(name: &str) -> Option<Self> {
                Some(match name { $($name => Self::$variant,)* _ => return None })
            }
        }
    };
}

builtins! {
    Args = "args", BinaryRemoteAddr = "binary_remote_addr", BodyBytesSent = "body_bytes_sent", BytesSent = "bytes_sent",
    Https = "https", SslCipher = "ssl_cipher", SslProtocol = "ssl_protocol", SslServerName = "ssl_server_name",
    SslSessionReused = "ssl_session_reused",
    Connection = "connection", ConnectionRequests = "connection_requests", ContentLength = "content_length",
    ContentType = "content_type", DocumentUri = "document_uri", Host = "host", Hostname = "hostname",
    IsArgs = "is_args", Msec = "msec", NginxVersion = "nginx_version", Pid = "pid", ProxyAddXForwardedFor =
    "proxy_add_x_forwarded_for", ProxyHost = "proxy_host", ProxyPort = "proxy_port", QueryString = "query_string",
    RemoteAddr = "remote_addr", RemotePort = "remote_port", RemoteUser = "remote_user", Request = "request",
    RequestCompletion = "request_completion", RequestId = "request_id", RequestLength = "request_length",
    RequestMethod = "request_method", RequestTime = "request_time", RequestUri = "request_uri", Scheme = "scheme",
    ServerAddr = "server_addr", ServerName = "server_name", ServerPort = "server_port", ServerProtocol =
    "server_protocol", Status = "status", TimeIso8601 = "time_iso8601", TimeLocal = "time_local",
    UpstreamAddr = "upstream_addr", UpstreamBytesReceived = "upstream_bytes_received", UpstreamConnectTime =
    "upstream_connect_time", UpstreamHeaderTime = "upstream_header_time", UpstreamResponseLength =
    "upstream_response_length", UpstreamResponseTime = "upstream_response_time", UpstreamStatus = "upstream_status",
    Uri = "uri",
    DysvrRevision = "dysvr_revision", DysvrTaskId = "dysvr_task_id", DysvrVsvcId = "dysvr_vsvc_id",
}
