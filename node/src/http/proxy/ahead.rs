//! What was read from an upstream before the client took it: 64 KiB in memory, then a file without a name, up to 1 GiB.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::{Bytes, BytesMut};

/// nginx's `proxy_buffers` 8 × 8k.
const MEMORY: usize = 64 << 10;
/// nginx's `proxy_max_temp_file_size`.
const FILE: u64 = 1 << 30;
/// What is read from the file at once.
const CHUNK: usize = 32 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    memory: VecDeque<Bytes>,
    held: usize,
    file: Option<Spill>,
}

#[derive(Debug)]
struct Spill {
    file: File,
    read: u64,
    written: u64,
}

impl Ahead {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.file.as_ref().is_none_or(|spill| spill.read == spill.written)
    }

    /// Whether it takes more.
    pub(super) fn has_room(&self) -> bool {
        self.held < MEMORY || self.file.as_ref().is_none_or(|spill| spill.written < FILE)
    }

    /// Adds a piece; `make` opens a file when memory is full.
    pub(super) fn push(&mut self, data: Bytes, make: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        let spilled = self.file.as_ref().is_some_and(|spill| spill.read < spill.written);
        if !spilled && self.held < MEMORY {
            self.held += data.len();
            self.memory.push_back(data);
            return Ok(());
        }
        let spill = match &mut self.file {
            Some(spill) => spill,
            None => self.file.insert(Spill { file: make()?, read: 0, written: 0 }),
        };
        spill.file.write_all_at(&data, spill.written)?;
        spill.written += data.len() as u64;
        Ok(())
    }

    /// Takes the oldest piece.
    pub(super) fn pop(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(data) = self.memory.pop_front() {
            self.held -= data.len();
            return Ok(Some(data));
        }
        let Some(spill) = &mut self.file else { return Ok(None) };
        let left = spill.written - spill.read;
        if left == 0 {
            return Ok(None);
        }
        let mut chunk = BytesMut::zeroed(left.min(CHUNK as u64) as usize);
        spill.file.read_exact_at(&mut chunk, spill.read)?;
        spill.read += chunk.len() as u64;
        if spill.read == spill.written {
            // What comes next begins at the front again.
            spill.file.set_len(0)?;
            (spill.read, spill.written) = (0, 0);
        }
        Ok(Some(chunk.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_in_order_what_it_took_through_memory_and_file() {
        let mut ahead = Ahead::default();
        let seed = 0x00c0_ffee_u64;
        let mut state = seed;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let (mut put, mut got) = (0_u64, 0_u64);
        for _ in 0..2000 {
            if random(3) > 0 {
                let data: Vec<u8> = (0..random(9000) + 1).map(|i| ((put + i) % 251) as u8).collect();
                put += data.len() as u64;
                ahead.push(data.into(), tempfile::tempfile).unwrap();
            } else if let Some(data) = ahead.pop().unwrap() {
                for byte in &data {
                    assert_eq!(u64::from(*byte), got % 251, "seed {seed:x}");
                    got += 1;
                }
            }
        }
        while let Some(data) = ahead.pop().unwrap() {
            got += data.len() as u64;
        }
        assert_eq!(got, put);
        assert!(ahead.is_empty() && ahead.has_room());
    }
}
