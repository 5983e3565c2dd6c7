//! `ngx_http_rewrite_module`: `set`, `if`, `return`, `rewrite`, `break`.

use std::sync::Arc;

use super::LocConf;
use crate::directive::{Arity, BlockKind, Contexts, Directive, LOCATION, LOCATION_IF, SERVER, SERVER_IF, Setter};
use crate::regex::Regex;
use crate::template::Template;

mod condition;
mod steps;

pub(crate) use condition::condition;

const ANY_BLOCK: Contexts = SERVER.or(SERVER_IF).or(LOCATION).or(LOCATION_IF);

/// The table.
pub static DIRECTIVES: &[Directive] = &[
    Directive::new("rewrite", ANY_BLOCK, Arity::between(2, 3), Setter::Script(steps::rewrite)),
    Directive::new("return", ANY_BLOCK, Arity::between(1, 2), Setter::Script(steps::returns)),
    Directive::new("break", ANY_BLOCK, Arity::NONE, Setter::Script(|_| Ok(Op::Break))),
    Directive::new("if", SERVER.or(LOCATION), Arity::at_least(1), Setter::Block(BlockKind::If)),
    Directive::new("set", ANY_BLOCK, Arity::exactly(2), Setter::Script(steps::set)),
];

/// Nothing.
pub type MainSet = ();
/// Nothing.
pub type SrvSet = ();
/// Nothing that is inherited: a block's [`Script`] is its own.
pub type LocSet = ();

/// The rewrite directives of a block, run in order.
pub type Script = Box<[Op]>;

/// One rewrite directive.
#[derive(Debug)]
pub enum Op {
    /// `set $x value`.
    Set {
        /// What is set.
        target: SetTarget,
        /// To what.
        value: Template,
    },
    /// `if (…) {…}`.
    If {
        /// When.
        condition: Condition,
        /// The block: its configuration replaces that of the location (none at server level), its directives run.
        then: Arc<Branch>,
    },
    /// `rewrite regex replacement [flag]`.
    Rewrite {
        /// Tried on `$uri`.
        regex: Regex,
        /// Group number → slot.
        groups: Box<[(u8, u16)]>,
        /// The new URI without its arguments; a whole URL up to its `?` for a redirect to another host.
        replacement: Template,
        /// The arguments behind `?` in the replacement.
        args: Option<Template>,
        /// Whether the request's own arguments are kept (no `?` at the end of the replacement).
        keep_args: bool,
        /// What comes next.
        flag: Flag,
    },
    /// `return`.
    Return {
        /// 444 closes the connection without an answer.
        status: u16,
        /// The text, or the URL of a redirect (301, 302, 303, 307, 308).
        body: Option<Template>,
    },
    /// `break`.
    Break,
}

/// What a `set` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTarget {
    /// A variable of the vhost.
    Slot(u16),
    /// `$args`, the one of nginx's own variables here that may be set.
    Args,
}

/// The block of an `if`.
#[derive(Debug)]
pub struct Branch {
    /// The merged configuration, with the handler of the location if the block has none; `None` at server level.
    pub conf: Option<Arc<LocConf>>,
    /// Its rewrite directives.
    pub script: Script,
}

/// The condition of an `if`.
#[derive(Debug)]
pub enum Condition {
    /// `if ($x)`: false for an empty value and for `0`.
    True(Template),
    /// `=` and `!=`.
    Equal {
        /// The variable.
        left: Template,
        /// The text.
        right: Template,
        /// `!=`.
        negate: bool,
    },
    /// `~`, `~*`, `!~`, `!~*`.
    Match {
        /// The variable.
        value: Template,
        /// The expression.
        regex: Regex,
        /// Group number → slot.
        groups: Box<[(u8, u16)]>,
        /// `!~`, `!~*`.
        negate: bool,
    },
    /// `-f`, `-d`, `-e`, `-x` and their negations.
    File {
        /// Which test.
        test: FileTest,
        /// The path.
        path: Template,
        /// `!`.
        negate: bool,
    },
}

/// A test on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTest {
    /// `-f`.
    File,
    /// `-d`.
    Directory,
    /// `-e`.
    Exists,
    /// `-x`.
    Executable,
}

/// The flag of a `rewrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// None: the next directive.
    Next,
    /// `last`: stop, search a location anew.
    Last,
    /// `break`: stop, stay in the location.
    Break,
    /// `redirect` (302), or a replacement that begins with a scheme.
    Redirect,
    /// `permanent` (301).
    Permanent,
}
