//! Reads what `-f` names: the disk and standard input behind [`super::bundle`].

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use dysvr_proto::wire::fleet;

use super::bundle::{Bundle, Files};
use super::cli::Inputs;
use super::exit::Failure;

/// The file system of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let matches = pattern.to_str().and_then(|pattern| glob::glob(pattern).ok());
        matches.into_iter().flatten().filter_map(Result::ok).filter(|path| path.is_file()).collect()
    }
}

/// All that the command line names, as one bundle.
pub fn gather(inputs: &Inputs) -> Result<Bundle, Failure> {
    let mut bundle = Bundle::default();
    for path in &inputs.filename {
        let added = if path == Path::new("-") {
            let Some(name) = &inputs.name else {
                return Err(Failure::Usage("-f - needs --name, the name of the vhost file".into()));
            };
            bundle.add_text(name, read_stdin()?)
        } else {
            bundle.add(&Disk, path, inputs.recursive)
        };
        added.map_err(|error| Failure::Usage(error.to_string()))?;
    }
    Ok(bundle)
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut content);
    read.map_err(|error| Failure::Failed(format!("cannot read standard input: {error}")))?;
    Ok(content)
}

/// The files as they travel.
pub fn to_wire(bundle: &Bundle) -> Vec<fleet::File> {
    let file = |(name, member): (&String, &super::bundle::Member)| fleet::File {
        name: name.clone(),
        content: member.content.clone(),
    };
    bundle.files.iter().map(file).collect()
}
