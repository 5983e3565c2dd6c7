//! The text of one block by itself: what makes the same of it when it is read again, wherever its files are by then.

use std::path::Path;
use std::sync::Arc;

use super::Load;
use super::block::inside;
use super::files::{File, MAX_DEPTH, Site};
use crate::glob;
use crate::model::{BlockText, TextPiece};
use crate::syntax::Directive;

/// Bytes of one block's own text. Files that include each other many times over reach any number; a real block stays far
/// below.
const MAX_OWN: usize = 1 << 20;
/// Pieces of one block's text.
const MAX_PIECES: usize = 1 << 10;

/// Text that is being gathered.
#[derive(Default)]
struct Gather {
    pieces: Vec<TextPiece>,
    own: Vec<u8>,
    /// Of the pieces that are done.
    own_bytes: usize,
    /// Files that the text is in.
    depth: usize,
}

impl Gather {
    fn own(&mut self, bytes: &[u8]) -> Option<()> {
        self.own.extend_from_slice(bytes);
        (self.own_bytes + self.own.len() <= MAX_OWN).then_some(())
    }

    fn file(&mut self, text: &Arc<[u8]>) -> Option<()> {
        self.end_own();
        self.pieces.push(TextPiece::File(Arc::clone(text)));
        // A comment at its end must not go on.
        self.own(b"\n")?;
        (self.pieces.len() <= MAX_PIECES).then_some(())
    }

    fn end_own(&mut self) {
        if !self.own.is_empty() {
            self.own_bytes += self.own.len();
            self.pieces.push(TextPiece::Own(std::mem::take(&mut self.own).into()));
        }
    }
}

impl<'a> Load<'a> {
    /// The text of a block whose includes are read already. Empty when it would be too large, or something of it is not
    /// known to this load: then the block cannot be read by itself.
    pub(crate) fn block_text(&self, site: &Arc<Site>, directive: &'a Directive<'a>) -> BlockText {
        let mut gather = Gather::default();
        let gathered = self.loaded(&site.file).and_then(|file| {
            let close = directive.block.as_ref()?.close;
            let mut from = directive.start().offset as usize;
            self.gather(file, inside(directive), &mut from, &mut gather)?;
            gather.own(file.text.get(from..=close.offset as usize)?)
        });
        match gathered {
            Some(()) => {
                gather.end_own();
                BlockText(gather.pieces.into())
            }
            None => BlockText::default(),
        }
    }

    /// Adds the text of a file from `from` on, with what the includes among the directives lead to in their places; the
    /// text behind the last of them is left.
    fn gather(
        &self,
        file: &File<'a>,
        directives: &'a [Directive<'a>],
        from: &mut usize,
        to: &mut Gather,
    ) -> Option<()> {
        for directive in directives {
            if let Some(block) = &directive.block {
                self.gather(file, block.directives, from, to)?;
            } else if directive.name() == "include" && directive.words.len() == 2 {
                to.own(file.text.get(*from..directive.start().offset as usize)?)?;
                *from = directive.end.offset as usize + 1;
                let wanted = self.conf_path(directive.words[1].text);
                match glob::is_pattern(&wanted) {
                    true => {
                        let paths = self.known(|read| read.globs.get(&wanted).cloned())?;
                        paths.iter().try_for_each(|path| self.gather_file(path, to))?;
                    }
                    false => self.gather_file(&wanted, to)?,
                }
            }
        }
        Some(())
    }

    fn gather_file(&self, path: &Path, to: &mut Gather) -> Option<()> {
        let file = self.loaded(path)?;
        // One that includes itself is refused elsewhere.
        if to.depth == MAX_DEPTH {
            return None;
        }
        if !has_includes(file.tree.directives) {
            return to.file(file.text);
        }
        let mut from = 0;
        to.depth += 1;
        self.gather(file, file.tree.directives, &mut from, to)?;
        to.depth -= 1;
        to.own(file.text.get(from..)?)?;
        to.own(b"\n")
    }

    fn loaded(&self, path: &Path) -> Option<&'a File<'a>> {
        self.known(|read| read.files.get(path.as_os_str()).cloned())?.ok()
    }
}

fn has_includes(directives: &[Directive<'_>]) -> bool {
    directives.iter().any(|directive| match &directive.block {
        Some(block) => has_includes(block.directives),
        None => directive.name() == "include",
    })
}
