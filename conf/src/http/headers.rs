//! `ngx_http_headers_module`: `add_header`.

use std::sync::Arc;

use http::HeaderName;

use crate::template::Template;

/// Nothing.
pub type MainSet = ();
/// Nothing.
pub type SrvSet = ();

level! {
    /// Location level.
    pub struct Loc from LocSet {
        /// `add_header`; inherited only by blocks that have none of their own.
        add: Arc<[AddHeader]> = Arc::new([]),
    }
}

/// One `add_header`.
#[derive(Clone, Debug)]
pub struct AddHeader {
    /// The header.
    pub name: HeaderName,
    /// Its value; an empty one adds nothing.
    pub value: Template,
    /// `always`: whatever the status (else 200, 201, 204, 206, 301, 302, 303, 304, 307, 308).
    pub always: bool,
}
