//! Paths in what is serialized: as their bytes, since a file's name need not be UTF-8.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize as _, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(path: &impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(path.as_ref().as_os_str().as_bytes())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, P>(deserializer: D) -> Result<P, D::Error>
where
    P: for<'p> From<&'p Path>,
{
    let bytes = <&[u8]>::deserialize(deserializer)?;
    Ok(P::from(Path::new(OsStr::from_bytes(bytes))))
}

/// The same for a path that may not be there.
pub(crate) mod option {
    use std::path::Path;
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Bytes(#[serde(with = "super")] Arc<Path>);

    pub(crate) fn serialize<S: Serializer>(path: &Option<Arc<Path>>, serializer: S) -> Result<S::Ok, S::Error> {
        path.clone().map(Bytes).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Path>>, D::Error> {
        Ok(Option::<Bytes>::deserialize(deserializer)?.map(|Bytes(path)| path))
    }
}
