//! `ngx_http_headers_module`: `add_header`.

use std::sync::Arc;

use http::HeaderName;

use super::LocSet as AnyLocSet;
use crate::directive::{Arity, Directive, Done, HTTP, LOCATION, LOCATION_IF, SERVER, Setter};
use crate::load::Call;
use crate::template::Template;

/// The table.
pub static DIRECTIVES: &[Directive] = &[Directive::new(
    "add_header",
    HTTP.or(SERVER).or(LOCATION).or(LOCATION_IF),
    Arity::between(2, 3),
    Setter::Loc(add_header),
)];

/// Nothing.
pub type MainSet = ();
/// Nothing.
pub type SrvSet = ();

level! {
    /// Location level.
    #[derive(PartialEq, Eq, Hash)]
    pub struct Loc from LocSet {
        /// `add_header`; inherited only by blocks that have none of their own.
        add: Arc<[AddHeader]> = Arc::new([]),
    }
}

/// One `add_header`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AddHeader {
    /// The header.
    pub name: HeaderName,
    /// Its value; an empty one adds nothing.
    pub value: Template,
    /// `always`: whatever the status (else 200, 201, 204, 206, 301, 302, 303, 304, 307, 308).
    pub always: bool,
}

fn add_header(set: &mut AnyLocSet, call: &mut Call<'_, '_>) -> Done {
    let name = header_name(call.arg(1))?;
    let value = call.template(call.arg(2))?;
    let always = call.arguments().len() == 3;
    if always && call.arg(3) != "always" {
        return Err(format!("invalid parameter \"{}\"", call.arg(3)).into());
    }
    let own = set.headers.add.take();
    let added = AddHeader { name, value, always };
    set.headers.add = Some(own.iter().flat_map(|list| list.iter()).cloned().chain([added]).collect());
    Ok(())
}

/// The name of a header.
pub(crate) fn header_name(text: &str) -> Done<HeaderName> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("invalid header name \"{text}\"").into())
}
