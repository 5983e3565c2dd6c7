//! One use of a directive: its arguments, read as nginx reads numbers, sizes, times and flags, and what a setter may ask
//! of the load around it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::files::Site;
use super::{Load, number};
use crate::directive::{Contexts, Done};
use crate::model::{OrderKey, Use};
use crate::problem::Place;
use crate::regex::Regex;
use crate::syntax::{Directive, Word};
use crate::template::Template;

/// What is wrong with a directive, in nginx's words without the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

impl<T: Into<String>> From<T> for Fault {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// The named groups of an expression: number and slot.
pub(crate) type Groups = Box<[(u8, u16)]>;

/// See the module.
pub struct Call<'c, 'a> {
    pub(crate) load: &'c mut Load<'a>,
    pub(crate) site: &'c Arc<Site>,
    pub(crate) directive: &'a Directive<'a>,
    pub(crate) context: Contexts,
}

impl<'a> Call<'_, 'a> {
    /// The directive's name.
    pub fn name(&self) -> &'a str {
        self.directive.name()
    }

    /// The words behind the name.
    pub fn arguments(&self) -> &'a [Word<'a>] {
        self.directive.arguments()
    }

    /// An argument, from 1; empty if there are not so many.
    pub fn arg(&self, number: usize) -> &'a str {
        self.directive.words.get(number).map_or("", |word| word.text)
    }

    /// Where it stands.
    pub fn context(&self) -> Contexts {
        self.context
    }

    /// Its file and line, none on the command line.
    pub fn place(&self) -> Option<Place> {
        self.site.place(self.directive.end)
    }

    /// Its place in the expanded source.
    pub fn key(&self) -> OrderKey {
        self.site.key(self.directive.start().offset)
    }

    /// Says something at `warn`.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.load.warning(self.site, self.directive.end, text.into());
    }

    /// `"x" directive TEXT`.
    pub fn fault(&self, text: &str) -> Fault {
        Fault(format!("\"{}\" directive {text}", self.name()))
    }

    /// Puts a value that may be given only once into its place.
    pub fn once<T>(&self, place: &mut Option<T>, value: T) -> Done {
        if place.is_some() {
            return Err(self.fault("is duplicate"));
        }
        *place = Some(value);
        Ok(())
    }

    /// `on` or `off`.
    pub fn flag(&self) -> Done<bool> {
        let value = self.arg(1);
        if value.eq_ignore_ascii_case("on") {
            Ok(true)
        } else if value.eq_ignore_ascii_case("off") {
            Ok(false)
        } else {
            let name = self.name();
            Err(format!("invalid value \"{value}\" in \"{name}\" directive, it must be \"on\" or \"off\"").into())
        }
    }

    /// A whole number.
    pub fn number(&self, argument: usize) -> Done<u64> {
        number::number(self.arg(argument)).ok_or_else(|| self.fault("invalid number"))
    }

    /// A size in bytes, with `k`, `m` or `g`.
    pub fn size(&self, argument: usize) -> Done<u64> {
        number::size(self.arg(argument)).ok_or_else(|| self.fault("invalid value"))
    }

    /// A time of millisecond resolution.
    pub fn time(&self, argument: usize) -> Done<Duration> {
        number::millis(self.arg(argument)).map(Duration::from_millis).ok_or_else(|| self.fault("invalid value"))
    }

    /// The shared copy of a text that others are likely to have as well: what is a vhost's own (its name, its upstream)
    /// would only be a burden to the table of shared ones.
    pub fn string(&mut self, text: &str) -> Arc<str> {
        self.load.interner.string(text)
    }

    /// A path relative to the prefix.
    pub fn prefix_path(&self, path: &str) -> PathBuf {
        self.load.prefix_path(path)
    }

    /// A path relative to the directory of the main configuration file.
    pub fn conf_path(&self, path: &str) -> PathBuf {
        self.load.conf_path(path)
    }

    /// What is read meanwhile, and what it uses of `http`: not counted as a use of the block around it.
    pub fn with_uses<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> (T, Box<[Use]>) {
        let outer = std::mem::take(&mut self.load.uses);
        let result = read(self);
        (result, std::mem::replace(&mut self.load.uses, outer).into())
    }

    /// A value with variables.
    pub fn template(&mut self, text: &str) -> Done<Template> {
        let at = super::variables::At { site: self.site, at: self.directive.end };
        self.load.template(text, at)
    }

    /// A variable by its bare name, as a template of its own.
    pub fn variable(&mut self, name: &str) -> Done<Template> {
        let at = super::variables::At { site: self.site, at: self.directive.end };
        let variable = self.load.variable(name, at)?;
        Ok(self.load.interner.template([crate::template::Part::Variable(variable)]))
    }

    /// An expression.
    pub fn regex(&mut self, pattern: &str, caseless: bool) -> Done<Regex> {
        let regex = self.load.interner.regex(pattern, caseless).map_err(Fault)?;
        if regex.is_alone() {
            self.load.regexes.push(regex.clone());
        }
        Ok(regex)
    }

    /// An expression whose named groups become variables of the vhost.
    pub fn regex_with_groups(&mut self, pattern: &str, caseless: bool) -> Done<(Regex, Groups)> {
        let regex = self.regex(pattern, caseless)?;
        let groups = self.load.groups(&regex)?;
        Ok((regex, groups))
    }
}
