//! `ngx_http_map_module`.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::digest::Digest;
use crate::directive::{Arity, BlockKind, Directive, HTTP, Setter};
use crate::model::{OrderKey, Use};
use crate::problem::Place;
use crate::regex::Regex;
use crate::template::Template;

/// The table.
pub static DIRECTIVES: &[Directive] =
    &[Directive::new("map", HTTP, Arity::exactly(2), Setter::Block(BlockKind::Map))];

/// Nothing.
pub type SrvSet = ();
/// Nothing.
pub type LocSet = ();

level! {
    /// `http` level.
    pub struct Main from MainSet {
        /// [`crate::variable::Variable::Map`] is an index into this. In the order of the file after a load; one that was
        /// deleted in place leaves a map without a name, whose place the next one takes.
        maps: Vec<Arc<Map>> = Vec::new(),
    }
}

/// One `map`.
#[derive(Debug, Default)]
pub struct Map {
    /// The variable that it makes, without the `$`.
    pub name: Arc<str>,
    /// What is looked up.
    pub source: Template,
    /// Exact values, in lower case.
    pub exact: FxHashMap<Box<str>, Template>,
    /// `hostnames`: `*.example.com`, kept as `example.com`.
    pub leading: FxHashMap<Box<str>, Template>,
    /// `hostnames`: `www.example.*`, kept as `www.example`.
    pub trailing: FxHashMap<Box<str>, Template>,
    /// Expressions in the order of the file. Their groups are `$1`… and named ones in the value.
    pub regexes: Vec<(Regex, Template)>,
    /// `default`, empty if absent.
    pub default: Template,
    /// `hostnames`.
    pub hostnames: bool,
    /// `volatile`: looked up at each use, not once per request.
    pub volatile: bool,
    /// Where its block begins.
    pub place: Option<Place>,
    /// Its place in the fully expanded source.
    pub order: OrderKey,
    /// What its block says.
    pub digest: Digest,
    /// What it uses.
    pub uses: Box<[Use]>,
}

impl Map {
    /// Its values.
    pub fn values(&self) -> impl Iterator<Item = &Template> {
        let values = self.exact.values().chain(self.leading.values()).chain(self.trailing.values());
        values.chain(self.regexes.iter().map(|(_, value)| value)).chain([&self.default])
    }
}
