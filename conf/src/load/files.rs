//! The files of a configuration: read once, parsed once, and where each inclusion of one stands.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Load;
use crate::glob;
use crate::model::{OrderKey, OrderStep};
use crate::problem::Place;
use crate::syntax::{self, Directive, Position, Tree};

/// `include`s may be nested this deep.
pub(crate) const MAX_DEPTH: usize = 50;

/// Inclusions in one pass over `http`, a file included twice counting twice: what stops a set of files that include each
/// other many times over from expanding without end. Ten thousand vhosts with an upstream file each are a tenth of it.
pub(crate) const MAX_INCLUSIONS: usize = 250_000;

/// The same for one `server`.
pub(crate) const MAX_SERVER_INCLUSIONS: usize = 5_000;

/// A parsed file.
pub(crate) struct File<'a> {
    pub(crate) path: Arc<Path>,
    pub(crate) text: &'a Arc<[u8]>,
    pub(crate) tree: Tree<'a>,
}

/// One inclusion of a file.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) file: Arc<Path>,
    pub(crate) origin: Origin,
    depth: usize,
    /// Whether it, or a file on the way to it, was found by a pattern.
    pub(crate) by_pattern: bool,
}

/// How a [`Site`] came to be.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The main file.
    Top,
    /// The `-g` option.
    Globals,
    /// Stands for the place in the main configuration that reaches the file: the steps that lead to it.
    Reached(Vec<OrderStep>),
    /// An `include` at an offset of another.
    Included(Arc<Site>, u32),
}

impl Site {
    pub(crate) fn new(file: Arc<Path>, origin: Origin) -> Arc<Self> {
        Arc::new(Self { file, origin, depth: 0, by_pattern: false })
    }

    pub(crate) fn included(file: Arc<Path>, by: &Arc<Self>, offset: u32, by_pattern: bool) -> Arc<Self> {
        let by_pattern = by_pattern || by.by_pattern;
        Arc::new(Self { file, origin: Origin::Included(Arc::clone(by), offset), depth: by.depth + 1, by_pattern })
    }

    /// The place of an offset of it in the fully expanded source.
    pub(crate) fn key(&self, offset: u32) -> OrderKey {
        let mut steps = vec![OrderStep { offset, file: None }];
        let mut site = self;
        loop {
            match &site.origin {
                Origin::Top | Origin::Globals => break,
                Origin::Reached(before) => {
                    steps.extend(before.iter().rev().cloned());
                    break;
                }
                Origin::Included(by, offset) => {
                    steps.push(OrderStep { offset: *offset, file: Some(Arc::clone(&site.file)) });
                    site = by;
                }
            }
        }
        steps.reverse();
        OrderKey(steps.into())
    }

    /// As problems name it; the command line has no lines.
    pub(crate) fn place(&self, at: Position) -> Option<Place> {
        match self.origin {
            Origin::Globals => None,
            _ => Some(Place { file: Arc::clone(&self.file), line: at.line }),
        }
    }

    fn holds(&self, file: &Path) -> bool {
        let mut site = self;
        loop {
            if site.file.as_os_str() == file.as_os_str() {
                return true;
            }
            match &site.origin {
                Origin::Included(by, _) => site = by,
                _ => return false,
            }
        }
    }
}

/// Visits a directive of a block in the expanded order.
pub(crate) type Visit<'v, 'a> = dyn FnMut(&mut Load<'a>, &Arc<Site>, &'a Directive<'a>) + 'v;

impl<'a> Load<'a> {
    /// Calls `visit` for each directive, those of included files in the place of their `include`, which itself is
    /// visited before them.
    pub(crate) fn expand(&mut self, site: &Arc<Site>, directives: &'a [Directive<'a>], visit: &mut Visit<'_, 'a>) {
        for directive in directives {
            visit(self, site, directive);
            if directive.name() == "include" && directive.words.len() == 2 && directive.block.is_none() {
                self.included(site, directive, &mut |load, file, inner| {
                    load.expand(inner, file.tree.directives, visit);
                });
            }
        }
    }

    /// Calls `visit` for each file that an `include` names, before the next one is read: files are read in the order of
    /// the expansion.
    pub(crate) fn included(
        &mut self,
        site: &Arc<Site>,
        directive: &'a Directive<'a>,
        visit: &mut dyn FnMut(&mut Self, &'a File<'a>, &Arc<Site>),
    ) {
        let wanted = self.conf_path(directive.words[1].text);
        if !glob::is_pattern(&wanted) {
            return self.included_files(site, directive, std::slice::from_ref(&wanted), false, visit);
        }
        match self.glob(&wanted) {
            Ok(paths) => self.included_files(site, directive, &paths, true, visit),
            Err(text) => self.problem(site, directive.end, text),
        }
    }

    /// The same for files that it is known to name.
    pub(crate) fn included_files(
        &mut self,
        site: &Arc<Site>,
        directive: &'a Directive<'a>,
        paths: &[PathBuf],
        by_pattern: bool,
        visit: &mut dyn FnMut(&mut Self, &'a File<'a>, &Arc<Site>),
    ) {
        for path in paths {
            let spent = self.inclusions_left == 0;
            self.inclusions_left = self.inclusions_left.saturating_sub(1);
            let refusal = if site.holds(path) {
                Some(format!("\"{}\" includes itself", path.display()))
            } else if site.depth == MAX_DEPTH {
                Some("includes are nested too deeply".into())
            } else if spent {
                Some("too many includes".into())
            } else {
                None
            };
            match refusal.map_or_else(|| self.file(path), Err) {
                Ok(file) => {
                    let inner = Site::included(Arc::clone(&file.path), site, directive.start().offset, by_pattern);
                    self.syntax_problems(file, &inner);
                    visit(self, file, &inner);
                }
                Err(text) => self.problem(site, directive.end, text),
            }
            if spent {
                break;
            }
        }
    }

    /// Notes what is wrong with a file's text.
    pub(crate) fn syntax_problems(&mut self, file: &File<'a>, site: &Arc<Site>) {
        for error in &file.tree.errors {
            self.problem(site, error.at, error.text.clone());
        }
    }

    /// A file, read and parsed at its first use in this load.
    pub(crate) fn file(&mut self, path: &Path) -> Result<&'a File<'a>, String> {
        if let Some(known) = self.known(|read| read.files.get(path.as_os_str()).cloned()) {
            return known;
        }
        let loaded = match self.ask().read(path) {
            Ok(content) => {
                let text = self.texts.keep(content);
                Ok(self.trees.keep(File { path: path.into(), text, tree: syntax::parse(text, self.blocks) }))
            }
            Err(error) => Err(format!("open() \"{}\" failed ({})", path.display(), os_error(&error))),
        };
        self.read.files.insert(path.as_os_str().to_owned(), loaded.clone());
        loaded
    }

    fn glob(&mut self, pattern: &Path) -> Result<Arc<[PathBuf]>, String> {
        if let Some(known) = self.known(|read| read.globs.get(pattern).cloned()) {
            return Ok(known);
        }
        let mut paths = self
            .ask()
            .glob(pattern)
            .map_err(|error| format!("glob() \"{}\" failed ({})", pattern.display(), os_error(&error)))?;
        // The order decides default servers, so it is not left to the source.
        paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        let paths: Arc<[PathBuf]> = paths.into();
        self.read.globs.insert(pattern.to_owned(), Arc::clone(&paths));
        Ok(paths)
    }

    /// A path relative to the directory of the main configuration file, without `.` and `//`, so that one file has one
    /// place in the order whatever way leads to it.
    pub(crate) fn conf_path(&self, path: &str) -> PathBuf {
        let path = match path.starts_with('/') {
            true => path.into(),
            false => self.options.conf.parent().unwrap_or(Path::new("/")).join(path),
        };
        match is_normal(path.as_os_str().as_encoded_bytes()) {
            true => path,
            false => path.components().collect(),
        }
    }

    /// A path relative to the prefix.
    pub(crate) fn prefix_path(&self, path: &str) -> PathBuf {
        self.options.prefix.join(path)
    }
}

/// Whether an absolute path is what its components make again.
fn is_normal(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/');
    parts.next().is_some_and(<[u8]>::is_empty) && parts.all(|part| !part.is_empty() && part != b".")
}

/// `2: No such file or directory`, as nginx says it.
pub(crate) fn os_error(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => {
            let text = error.to_string();
            let text = text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text).to_owned();
            format!("{code}: {text}")
        }
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normal_path_is_what_its_components_make_again() {
        for path in ["/", "/a", "/a/", "/a//b", "//a", "/a/./b", "/a/.", "/./a", "/.a", "/a/.b.", "a", ""] {
            let again: PathBuf = Path::new(path).components().collect();
            assert!(again.as_os_str() == path || !is_normal(path.as_bytes()), "{path}");
        }
        assert!(["/a", "/a/b.conf", "/a/../b", "/.a"].iter().all(|path| is_normal(path.as_bytes())));
    }
}
