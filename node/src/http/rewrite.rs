//! `set`, `if`, `return`, `rewrite`, `break`.

use std::sync::Arc;

use dysvr_conf::http::rewrite::{Branch, Condition, FileTest, Flag, Op, SetTarget};
use dysvr_conf::regex::Regex;
use dysvr_conf::template::{Part, Template};
use dysvr_conf::variable::Variable;

use super::captures::Captures;
use super::request::Request;
use super::response::Answer;
use super::{error_page, response, template, uri, variable};
use crate::log::Level;

/// What a phase says about a request.
pub(super) enum Step {
    /// Go on.
    Next,
    /// This is the answer.
    Answer(Answer),
    /// Close without an answer.
    Close,
}

/// How a script ended.
enum End {
    /// After its last directive: what follows an `if` is run.
    Through,
    /// By `break`, `last` or a redirect: nothing more is run.
    Stop,
    /// With an answer.
    Step(Step),
}

/// Runs the directives of a block.
pub(super) fn run(request: &mut Request, script: &[Op]) -> Step {
    match run_ops(request, script) {
        End::Step(step) => step,
        End::Through | End::Stop => Step::Next,
    }
}

fn run_ops(request: &mut Request, script: &[Op]) -> End {
    for op in script {
        let end = match op {
            Op::Set { target, value } => {
                let value = template::value(request, value).into_owned();
                #[cfg(feature = "poison")]
                crate::poison::value(&value);
                match target {
                    SetTarget::Slot(slot) => request.set_slot(*slot, value),
                    SetTarget::Args => request.set_args(value),
                }
                End::Through
            }
            Op::If { condition, then } => run_if(request, condition, then),
            Op::Rewrite { regex, groups, replacement, args, keep_args, flag } => {
                let rewrite =
                    Rewrite { regex, groups, replacement, args: args.as_ref(), keep_args: *keep_args, flag: *flag };
                rewrite.run(request)
            }
            Op::Return { status, body } => End::Step(answer_return(request, *status, body.as_ref())),
            Op::Break => {
                if request.uri_changed {
                    request.valid_location = false;
                    request.uri_changed = false;
                }
                End::Stop
            }
        };
        if !matches!(end, End::Through) {
            return end;
        }
    }
    End::Through
}

fn run_if(request: &mut Request, condition: &Condition, then: &Branch) -> End {
    match holds(request, condition) {
        Ok(false) => End::Through,
        Ok(true) => {
            if let Some(conf) = &then.conf {
                request.conf = Arc::clone(conf);
                super::handler::location_changed(request);
            }
            run_ops(request, &then.script)
        }
        Err(error) => {
            request.error(Level::Error, format_args!("{error}"));
            End::Step(Step::Answer(response::page(request, 500, None)))
        }
    }
}

fn holds(request: &mut Request, condition: &Condition) -> Result<bool, String> {
    Ok(match condition {
        Condition::True(value) => variable::holds(request, value),
        Condition::Equal { left, right, negate } => {
            (template::value(request, left) == template::value(request, right)) != *negate
        }
        Condition::Match { value, regex, groups, negate } => {
            let value = template::value(request, value);
            let captures = Captures::run(regex, &value)?;
            let matched = captures.is_some();
            if let Some(captures) = captures {
                request.captured(captures, groups);
            }
            matched != *negate
        }
        Condition::File { test, path, negate } => {
            let path = template::value(request, path);
            let path = std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path));
            let metadata = std::fs::metadata(path).ok();
            let is = metadata.is_some_and(|metadata| match test {
                FileTest::File => metadata.is_file(),
                FileTest::Directory => metadata.is_dir(),
                FileTest::Exists => true,
                FileTest::Executable => std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0,
            });
            is != *negate
        }
    })
}

/// The answer of a `return`.
fn answer_return(request: &mut Request, status: u16, body: Option<&Template>) -> Step {
    if status == error_page::CLOSE {
        return Step::Close;
    }
    let Some(body) = body.filter(|body| !body.parts.is_empty()) else {
        return Step::Answer(if status < 400 && !is_redirect(status) {
            response::text(request, status, &response::content_type(request), bytes::Bytes::new())
        } else {
            response::page(request, status, None)
        });
    };
    // The text may ask for it.
    request.status = status;
    let value = template::value(request, body).into_owned();
    if is_redirect(status) {
        return Step::Answer(response::page(request, status, Some(&value)));
    }
    let kind = response::content_type(request);
    Step::Answer(response::text(request, status, &kind, value.into()))
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

struct Rewrite<'a> {
    regex: &'a Regex,
    groups: &'a [(u8, u16)],
    replacement: &'a Template,
    args: Option<&'a Template>,
    keep_args: bool,
    flag: Flag,
}

impl Rewrite<'_> {
    fn run(&self, request: &mut Request) -> End {
        let captures = match Captures::run(self.regex, request.path()) {
            Ok(Some(captures)) => captures,
            Ok(None) => return End::Through,
            Err(error) => {
                request.error(Level::Error, format_args!("{error}"));
                return End::Step(Step::Answer(response::page(request, 500, None)));
            }
        };
        request.captured(captures, self.groups);
        match self.flag {
            Flag::Redirect | Flag::Permanent => self.redirect(request),
            Flag::Next | Flag::Last | Flag::Break => self.replace(request),
        }
    }

    fn redirect(&self, request: &mut Request) -> End {
        let mut url = Vec::new();
        append_quoted(request, self.replacement, request.quoted, &mut url);
        if let Some(args) = self.args {
            url.push(b'?');
            append_quoted(request, args, request.quoted, &mut url);
        }
        let mut url = uri::unescape_redirect(&url);
        if self.keep_args && !request.args().is_empty() {
            url.push(if self.args.is_some() { b'&' } else { b'?' });
            url.extend_from_slice(request.args());
        }
        let status = if self.flag == Flag::Permanent { 301 } else { 302 };
        End::Step(Step::Answer(response::page(request, status, Some(&url))))
    }

    fn replace(&self, request: &mut Request) -> End {
        let mut path = Vec::new();
        append_quoted(request, self.replacement, false, &mut path);
        let mut args = Vec::new();
        if let Some(own) = self.args {
            append_quoted(request, own, request.quoted, &mut args);
            if self.keep_args && !request.args().is_empty() {
                args.push(b'&');
                args.extend_from_slice(request.args());
            }
            request.set_args(args);
        } else if !self.keep_args && request.has_args() {
            request.set_args(args);
        }
        request.internal = true;
        request.unparsed_uri = false;
        if path.is_empty() {
            request.error(Level::Error, format_args!("the rewritten URI has a zero length"));
            return End::Step(Step::Answer(response::page(request, 500, None)));
        }
        request.set_path(path);
        if self.flag == Flag::Break {
            request.valid_location = false;
            request.uri_changed = false;
        } else {
            request.uri_changed = true;
        }
        if self.flag == Flag::Next { End::Through } else { End::Stop }
    }
}

/// Appends a template whose groups are escaped, if the path that they come from was.
fn append_quoted(request: &Request, template: &Template, quoted: bool, out: &mut Vec<u8>) {
    for part in &*template.parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Variable(Variable::Capture(group)) => {
                let text = request.captures.get(*group).unwrap_or_default();
                if quoted {
                    uri::escape(out, text, uri::Escape::Arguments);
                } else {
                    out.extend_from_slice(text);
                }
            }
            Part::Variable(other) => drop(variable::append(request, other, out)),
        }
    }
}
