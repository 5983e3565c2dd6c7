//! What a directive is: a row of a table. The rules that hold for all of them (known, allowed here, number of
//! arguments, block or not) are applied here, in nginx's words, and nowhere else.
//!
//! Each module has a table `DIRECTIVES`; a name may have several rows that differ in their contexts.

use std::ops::BitOr;
use std::sync::OnceLock;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::http::{self, LocSet, SrvSet, rewrite};
use crate::load::{Call, Fault, ServerSet, UpstreamSet};
use crate::{main_conf, syntax};

/// A row.
pub struct Directive {
    /// As it stands in the file.
    pub name: &'static str,
    /// Where it may stand.
    pub contexts: Contexts,
    /// How many arguments it takes.
    pub arity: Arity,
    /// What it does.
    pub set: Setter,
}

impl Directive {
    /// A row; in the order in which nginx's own tables have it.
    pub const fn new(name: &'static str, contexts: Contexts, arity: Arity, set: Setter) -> Self {
        Self { name, contexts, arity, set }
    }
}

/// What a setter answers.
pub type Done<T = ()> = Result<T, Fault>;

/// What a directive does, by the level on which it acts. A block of that level is handed to it.
pub enum Setter {
    /// A setting of the main level.
    Main(fn(&mut main_conf::MainSet, &mut Call<'_, '_>) -> Done),
    /// A setting of `events`.
    Events(fn(&mut main_conf::EventsSet, &mut Call<'_, '_>) -> Done),
    /// A setting of `http` alone.
    Http(fn(&mut http::MainSet, &mut Call<'_, '_>) -> Done),
    /// A setting of `http` that a `server` inherits.
    Srv(fn(&mut SrvSet, &mut Call<'_, '_>) -> Done),
    /// A part of the vhost itself.
    Server(fn(&mut ServerSet, &mut Call<'_, '_>) -> Done),
    /// A setting that `http`, `server`, `location` and `if` pass on.
    Loc(fn(&mut LocSet, &mut Call<'_, '_>) -> Done),
    /// A step of the block's script.
    Script(fn(&mut Call<'_, '_>) -> Done<rewrite::Op>),
    /// A part of an `upstream`.
    Upstream(fn(&mut UpstreamSet, &mut Call<'_, '_>) -> Done),
    /// `include`.
    Include,
    /// A directive with `{}`.
    Block(BlockKind),
}

/// The blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// `events {}`
    Events,
    /// `http {}`
    Http,
    /// `map … {}`
    Map,
    /// `upstream … {}`
    Upstream,
    /// `server {}`
    Server,
    /// `location … {}`
    Location,
    /// `if (…) {}`
    If,
}

/// A set of places where a directive may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contexts(u16);

/// Outside every block.
pub const MAIN: Contexts = Contexts(1);
/// In `events`.
pub const EVENTS: Contexts = Contexts(1 << 1);
/// In `http`.
pub const HTTP: Contexts = Contexts(1 << 2);
/// In `server`.
pub const SERVER: Contexts = Contexts(1 << 3);
/// In `location`.
pub const LOCATION: Contexts = Contexts(1 << 4);
/// In an `if` of a `server`.
pub const SERVER_IF: Contexts = Contexts(1 << 5);
/// In an `if` of a `location`.
pub const LOCATION_IF: Contexts = Contexts(1 << 6);
/// In an `upstream`.
pub const UPSTREAM: Contexts = Contexts(1 << 7);
/// Anywhere.
pub const ANYWHERE: Contexts = Contexts(u16::MAX);

impl Contexts {
    /// Either's.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether they have a place in common.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Contexts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.or(other)
    }
}

/// A set of numbers of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity(u16);

impl Arity {
    /// None.
    pub const NONE: Self = Self::exactly(0);
    /// One, `on` or `off`; the word itself is checked by the setter.
    pub const FLAG: Self = Self::exactly(1);
    /// Any number.
    pub const ANY: Self = Self(u16::MAX);

    /// That many.
    pub const fn exactly(count: u32) -> Self {
        Self(1 << count)
    }

    /// Any number in a range; nginx knows none above 7.
    pub const fn between(least: u32, most: u32) -> Self {
        Self((1 << (most + 1)) - (1 << least))
    }

    /// That many or more.
    pub const fn at_least(count: u32) -> Self {
        Self(u16::MAX << count)
    }

    fn allows(self, count: usize) -> bool {
        self.0 & (1 << count.min(15)) != 0
    }
}

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Directive> {
    main_conf::DIRECTIVES.iter().chain(http::TABLES.iter().copied().flatten())
}

/// All rows by name.
fn rows(name: &str) -> &'static [&'static Directive] {
    static BY_NAME: OnceLock<FxHashMap<&'static str, SmallVec<[&'static Directive; 2]>>> = OnceLock::new();
    let table = BY_NAME.get_or_init(|| {
        let mut table: FxHashMap<_, SmallVec<[_; 2]>> = FxHashMap::default();
        for row in all() {
            table.entry(row.name).or_default().push(row);
        }
        table
    });
    table.get(name).map_or(&[], |rows| rows)
}

/// The row of a directive in its context, or what is wrong with using it so.
pub(crate) fn find(directive: &syntax::Directive<'_>, context: Contexts) -> Result<&'static Directive, String> {
    let name = directive.name();
    let rows = rows(name);
    if rows.is_empty() {
        return Err(format!("unknown directive \"{name}\""));
    }
    let Some(row) = rows.iter().find(|row| row.contexts.meets(context)) else {
        return Err(format!("\"{name}\" directive is not allowed here"));
    };
    match (&row.set, &directive.block) {
        (Setter::Block(_), None) => Err(format!("directive \"{name}\" has no opening \"{{\"")),
        (Setter::Block(_), Some(_)) | (_, None) => {
            if row.arity.allows(directive.arguments().len()) {
                Ok(row)
            } else {
                Err(format!("invalid number of arguments in \"{name}\" directive"))
            }
        }
        (_, Some(_)) => Err(format!("directive \"{name}\" is not terminated by \";\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arities() {
        let allowed = |arity: Arity| (0..20).filter(|count| arity.allows(*count)).collect::<Vec<_>>();
        assert_eq!(allowed(Arity::NONE), [0]);
        assert_eq!(allowed(Arity::exactly(2)), [2]);
        assert_eq!(allowed(Arity::between(1, 3)), [1, 2, 3]);
        assert_eq!(allowed(Arity::at_least(2)), (2..20).collect::<Vec<_>>());
        assert_eq!(allowed(Arity::ANY).len(), 20);
    }

    #[test]
    fn rows_of_a_name_differ_in_context() {
        for row in all() {
            let meeting = rows(row.name).iter().filter(|other| other.contexts.meets(row.contexts)).count();
            assert_eq!(meeting, 1, "{}", row.name);
        }
    }
}
