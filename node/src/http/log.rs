//! `access_log`.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dysvr_conf::http::MainConf;
use dysvr_conf::http::log::{AccessLog, Escape, Format};
use dysvr_conf::template::{Part, Template};

use super::request::Request;
use super::variable;
use crate::log::{Level, LogFile, open_file};

/// The access logs of a configuration with their files.
pub(super) struct Plan {
    entries: Box<[Entry]>,
    /// A format or a condition asks for headers of an answer, which are gone when it has been sent.
    pub wants_headers: bool,
}

struct Entry {
    file: Rc<LogFile>,
    format: Arc<Format>,
    condition: Option<Template>,
    buffer: Option<Rc<Buffer>>,
}

/// `buffer=`, `flush=`.
struct Buffer {
    size: usize,
    flush: Option<Duration>,
    held: RefCell<Vec<u8>>,
    since: Cell<Option<Instant>>,
}

impl Plan {
    /// Opens the files; one that cannot be opened is reported and left out.
    pub(super) fn open(logs: &[AccessLog], prefix: &Path, main: &MainConf) -> Self {
        let open = |log: &AccessLog| {
            let path = prefix.join(&**log.path);
            let file = match open_file(&path) {
                Ok(file) => file,
                Err(error) => {
                    crate::log!(Level::Error, "open() \"{}\" failed ({error})", path.display());
                    return None;
                }
            };
            let buffer = log.buffer.map(|size| {
                Rc::new(Buffer { size, flush: log.flush, held: RefCell::default(), since: Cell::default() })
            });
            let format = Arc::clone(main.log.formats.get(usize::from(log.format))?);
            Some(Entry { file, format, condition: log.condition.clone(), buffer })
        };
        let maps = &main.map.maps;
        let wants = |log: &AccessLog| {
            let format = main.log.formats.get(usize::from(log.format));
            format.is_some_and(|format| variable::needs_answer(&format.line, maps))
                || log.condition.as_ref().is_some_and(|condition| variable::needs_answer(condition, maps))
        };
        Self { entries: logs.iter().filter_map(open).collect(), wants_headers: logs.iter().any(wants) }
    }

    /// Writes what is buffered.
    pub(super) fn flush(&self) {
        for entry in &self.entries {
            if let Some(buffer) = &entry.buffer {
                buffer.write(&entry.file);
            }
        }
    }
}

/// The log phase.
pub(super) fn write(request: &Request) {
    if request.conf.log.access_logs.is_empty() {
        return;
    }
    let plan = request.ctx.access_plan(&request.main, &request.conf.log.access_logs);
    for entry in &plan.entries {
        if entry.condition.as_ref().is_some_and(|condition| !variable::holds(request, condition)) {
            continue;
        }
        let mut line = request.ctx.scratch.take();
        line.clear();
        append_line(request, &entry.format, &mut line);
        match &entry.buffer {
            None => entry.file.append(&line),
            Some(buffer) => buffer.add(entry, &line, request.ctx.clock.now()),
        }
        request.ctx.scratch.set(line);
    }
}

impl Drop for Plan {
    /// The configuration that logged so is gone, what it has logged is not.
    fn drop(&mut self) {
        self.flush();
    }
}

impl Buffer {
    fn add(self: &Rc<Self>, entry: &Entry, line: &[u8], now: Instant) {
        let mut held = self.held.borrow_mut();
        if held.len() + line.len() > self.size && !held.is_empty() {
            entry.file.append(&held);
            held.clear();
            self.since.set(None);
        }
        if line.len() > self.size {
            entry.file.append(line);
            return;
        }
        held.extend_from_slice(line);
        if self.since.get().is_none() {
            self.since.set(Some(now));
            if let Some(flush) = self.flush {
                let (buffer, file) = (Rc::downgrade(self), Rc::clone(&entry.file));
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(flush).await;
                    if let Some(buffer) = buffer.upgrade() {
                        buffer.write(&file);
                    }
                });
            }
        }
    }

    fn write(&self, file: &LogFile) {
        let mut held = self.held.borrow_mut();
        if !held.is_empty() {
            file.append(&held);
            held.clear();
        }
        self.since.set(None);
    }
}

fn append_line(request: &Request, format: &Format, line: &mut Vec<u8>) {
    let mut value = Vec::new();
    for part in &*format.line.parts {
        match part {
            Part::Literal(text) => line.extend_from_slice(text.as_bytes()),
            Part::Variable(name) => {
                value.clear();
                let found = variable::append(request, name, &mut value);
                match format.escape {
                    Escape::Default if !found => line.push(b'-'),
                    Escape::Default => escape_default(&value, line),
                    Escape::Json => escape_json(&value, line),
                    Escape::None => line.extend_from_slice(&value),
                }
            }
        }
    }
    line.push(b'\n');
}

fn escape_default(value: &[u8], line: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in value {
        match byte {
            b'"' | b'\\' | 0..=31 | 127.. => {
                line.extend_from_slice(b"\\x");
                line.push(HEX[usize::from(byte >> 4)]);
                line.push(HEX[usize::from(byte & 15)]);
            }
            _ => line.push(byte),
        }
    }
}

fn escape_json(value: &[u8], line: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in value {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            8 => line.extend_from_slice(b"\\b"),
            12 => line.extend_from_slice(b"\\f"),
            0..=31 => {
                line.extend_from_slice(b"\\u00");
                line.push(HEX[usize::from(byte >> 4)]);
                line.push(HEX[usize::from(byte & 15)]);
            }
            _ => line.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let mut out = Vec::new();
        escape_default(b"a\"b\\\x01\xff~", &mut out);
        assert_eq!(out, br"a\x22b\x5C\x01\xFF~");
        out.clear();
        escape_json(b"a\"b\\\n\x01\xc3\xa4", &mut out);
        assert_eq!(out, b"a\\\"b\\\\\\n\\u0001\xc3\xa4");
    }
}
