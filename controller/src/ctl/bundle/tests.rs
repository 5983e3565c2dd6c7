//! Trees of files in, names and paths out.

use super::*;

/// A file system of a few texts, as seen from a working directory: paths are resolved against `/work`.
struct Picture(BTreeMap<PathBuf, &'static str>);

impl Picture {
    fn new(files: &[(&str, &'static str)]) -> Self {
        Self(files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect())
    }

    /// Absolute, without `.` and `..`.
    fn real(path: &Path) -> PathBuf {
        let mut real = PathBuf::from("/");
        for part in Path::new("/work").join(path).components() {
            match part {
                Component::ParentDir => {
                    real.pop();
                }
                Component::Normal(part) => real.push(part),
                _ => {}
            }
        }
        real
    }
}

impl Files for Picture {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = self.0.get(&Self::real(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(text.as_bytes().to_vec())
    }

    fn is_file(&self, path: &Path) -> bool {
        self.0.contains_key(&Self::real(path))
    }

    fn is_dir(&self, path: &Path) -> bool {
        let real = Self::real(path);
        self.0.keys().any(|file| file.starts_with(&real) && *file != real)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let real = Self::real(dir);
        let first = |file: &PathBuf| Some(dir.join(file.strip_prefix(&real).ok()?.components().next()?));
        let entries: BTreeSet<PathBuf> = self.0.keys().filter_map(first).collect();
        Ok(entries.into_iter().collect())
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let (Some(dir), Some(last)) = (pattern.parent(), pattern.file_name().and_then(|last| last.to_str())) else {
            return Vec::new();
        };
        let Some((before, after)) = last.split_once('*') else { return Vec::new() };
        let fits = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            self.is_file(path) && name.starts_with(before) && name.ends_with(after)
        };
        self.list(dir).unwrap_or_default().into_iter().filter(fits).collect()
    }
}

/// `name <- path` for each file and `path:line lacks include` for what is missing.
fn bundled(picture: &Picture, paths: &[&str], recursive: bool) -> Result<String, String> {
    let mut bundle = Bundle::default();
    for path in paths {
        bundle.add(picture, Path::new(path), recursive).map_err(|error| error.to_string())?;
    }
    let files = bundle.files.iter().map(|(name, member)| format!("{name} <- {}\n", member.path.display()));
    let missing = bundle
        .missing
        .iter()
        .map(|missing| format!("{}:{} lacks {}\n", missing.path.display(), missing.include.line, missing.include.path));
    Ok(files.chain(missing).collect())
}

const SEED: &str =
    "include auto_upstream/a.upstream.conf;\n\nserver {\n  listen 80;\n  include common_location.conf;\n}\n";

fn conf_dir() -> Picture {
    Picture::new(&[
        ("/etc/dysvr/conf/nginx.conf", "http { include auto_vhost/*.conf; }"),
        ("/etc/dysvr/conf/mime.types", "types {}"),
        ("/etc/dysvr/conf/other.conf", "# of the node"),
        ("/etc/dysvr/conf/common_location.conf", "location /x { include snippets/deep.conf; }"),
        ("/etc/dysvr/conf/snippets/deep.conf", "return 200;"),
        ("/etc/dysvr/conf/auto_vhost/a.conf", SEED),
        ("/etc/dysvr/conf/auto_vhost/b.conf", "server { include auto_upstream/gone.conf; include /etc/abs.conf; }"),
        ("/etc/dysvr/conf/auto_vhost/README", "not a vhost"),
        ("/etc/dysvr/conf/auto_upstream/a.upstream.conf", "upstream a {}"),
        ("/etc/dysvr/conf/auto_upstream/unused.conf", "upstream u {}"),
    ])
}

#[test]
fn a_configuration_directory_gives_its_vhosts_upstreams_and_what_they_include() {
    let wanted = "\
auto_upstream/a.upstream.conf <- /etc/dysvr/conf/auto_upstream/a.upstream.conf
auto_upstream/unused.conf <- /etc/dysvr/conf/auto_upstream/unused.conf
auto_vhost/a.conf <- /etc/dysvr/conf/auto_vhost/a.conf
auto_vhost/b.conf <- /etc/dysvr/conf/auto_vhost/b.conf
common_location.conf <- /etc/dysvr/conf/common_location.conf
snippets/deep.conf <- /etc/dysvr/conf/snippets/deep.conf
/etc/dysvr/conf/auto_vhost/b.conf:1 lacks auto_upstream/gone.conf
";
    assert_eq!(bundled(&conf_dir(), &["/etc/dysvr/conf"], false), Ok(wanted.into()));
    let recursive = bundled(&conf_dir(), &["/etc"], true);
    assert_eq!(recursive, Ok(wanted.into()), "a configuration directory is found below, and not descended into");
}

#[test]
fn one_file_brings_its_includes_along() {
    let wanted = "\
auto_upstream/a.upstream.conf <- /etc/dysvr/conf/auto_upstream/a.upstream.conf
auto_vhost/a.conf <- /etc/dysvr/conf/auto_vhost/a.conf
common_location.conf <- /etc/dysvr/conf/common_location.conf
snippets/deep.conf <- /etc/dysvr/conf/snippets/deep.conf
";
    assert_eq!(bundled(&conf_dir(), &["/etc/dysvr/conf/auto_vhost/a.conf"], false), Ok(wanted.into()));
}

#[test]
fn the_directory_of_one_file_is_the_nearest_one_above_that_has_its_includes() {
    let picture = Picture::new(&[
        ("/work/team/sites/a.conf", SEED),
        ("/work/auto_upstream/a.upstream.conf", "upstream a {}"),
        ("/work/common_location.conf", ""),
    ]);
    let wanted = "\
auto_upstream/a.upstream.conf <- auto_upstream/a.upstream.conf
auto_vhost/a.conf <- team/sites/a.conf
common_location.conf <- common_location.conf
";
    assert_eq!(bundled(&picture, &["team/sites/a.conf"], false), Ok(wanted.into()));
    // The same, seen from within auto_vhost/.
    let picture = Picture::new(&[
        ("/work/a.conf", SEED),
        ("/auto_upstream/a.upstream.conf", "upstream a {}"),
        ("/common_location.conf", ""),
    ]);
    let wanted = "\
auto_upstream/a.upstream.conf <- ../auto_upstream/a.upstream.conf
auto_vhost/a.conf <- a.conf
common_location.conf <- ../common_location.conf
";
    assert_eq!(bundled(&picture, &["a.conf"], false), Ok(wanted.into()));
}

#[test]
fn an_include_that_lies_beside_its_vhost_gets_the_name_that_the_node_looks_for() {
    let picture = Picture::new(&[
        ("/work/conf/auto_vhost/a.conf", SEED),
        ("/work/conf/auto_vhost/auto_upstream/a.upstream.conf", "upstream a {}"),
    ]);
    let wanted = "\
auto_upstream/a.upstream.conf <- conf/auto_vhost/auto_upstream/a.upstream.conf
auto_vhost/a.conf <- conf/auto_vhost/a.conf
conf/auto_vhost/a.conf:5 lacks common_location.conf
";
    assert_eq!(bundled(&picture, &["conf/auto_vhost/a.conf"], false), Ok(wanted.into()));
}

#[test]
fn a_flat_directory_holds_vhosts_except_for_what_they_include() {
    let picture = Picture::new(&[
        ("/work/flat/nginx.conf", "http {}"),
        ("/work/flat/a.conf", "include a.upstream.conf; server { include loc-*.conf; }"),
        ("/work/flat/a.upstream.conf", "upstream a {}"),
        ("/work/flat/loc-1.conf", ""),
        ("/work/flat/loc-2.conf", ""),
        ("/work/flat/b.conf", "server {}"),
        ("/work/flat/notes.txt", ""),
        ("/work/flat/sub/c.conf", "server {}"),
    ]);
    let wanted = "\
a.upstream.conf <- flat/a.upstream.conf
auto_vhost/a.conf <- flat/a.conf
auto_vhost/b.conf <- flat/b.conf
loc-1.conf <- flat/loc-1.conf
loc-2.conf <- flat/loc-2.conf
";
    assert_eq!(bundled(&picture, &["flat"], false), Ok(wanted.into()));
    let recursive = bundled(&picture, &["flat"], true).expect("a bundle");
    assert!(recursive.contains("auto_vhost/c.conf <- flat/sub/c.conf\n"), "{recursive}");
}

#[test]
fn what_cannot_be_a_bundle_is_refused() {
    let picture = Picture::new(&[
        ("/work/one/a.conf", "server {}"),
        ("/work/two/a.conf", "server { listen 81; }"),
        ("/work/three/a.conf", "server {}"),
        ("/work/empty/notes.txt", ""),
        ("/work/main/nginx.conf", ""),
    ]);
    for (paths, wanted) in [
        (&["nowhere"][..], "the path \"nowhere\" does not exist"),
        (&["empty"], "empty has no auto_vhost/*.conf and no *.conf"),
        (&["main"], "main has no auto_vhost/*.conf and no *.conf"),
        (&["main/nginx.conf"], "main/nginx.conf is the main file of a node, not a vhost file"),
        (&["one", "two"], "one/a.conf and two/a.conf would both be auto_vhost/a.conf, and they differ"),
    ] {
        assert_eq!(bundled(&picture, paths, false), Err(wanted.into()), "{paths:?}");
    }
    assert_eq!(bundled(&picture, &["one", "three"], false), Ok("auto_vhost/a.conf <- one/a.conf\n".into()));
}

#[test]
fn includes_that_go_in_circles_or_out_of_the_directory_end() {
    let picture = Picture::new(&[
        ("/work/conf/auto_vhost/a.conf", "include x.conf; include ../../etc/passwd; include ./x.conf;"),
        ("/work/conf/x.conf", "include y.conf;"),
        ("/work/conf/y.conf", "include x.conf;"),
    ]);
    let wanted = "auto_vhost/a.conf <- conf/auto_vhost/a.conf\nx.conf <- conf/x.conf\ny.conf <- conf/y.conf\n";
    assert_eq!(bundled(&picture, &["conf"], false), Ok(wanted.into()));
}

#[test]
fn standard_input_is_a_vhost_file_whose_includes_the_fleet_may_have() {
    let mut bundle = Bundle::default();
    bundle.add_text("auto_vhost/a", SEED.as_bytes().to_vec()).expect("a bundle");
    assert_eq!(bundle.vhost_files().collect::<Vec<_>>(), ["auto_vhost/a.conf"]);
    let missing: Vec<&str> = bundle.missing.iter().map(|missing| missing.include.path.as_str()).collect();
    assert_eq!(missing, ["auto_upstream/a.upstream.conf", "common_location.conf"]);
    let picture =
        Picture::new(&[("/work/conf/auto_upstream/a.upstream.conf", ""), ("/work/conf/auto_vhost/b.conf", "")]);
    bundle.add(&picture, Path::new("conf"), false).expect("a bundle");
    let missing: Vec<&str> = bundle.missing.iter().map(|missing| missing.include.path.as_str()).collect();
    assert_eq!(missing, ["common_location.conf"], "another input brought the other");
    assert_eq!(bundle.path_of("/usr/local/conf/auto_vhost/a.conf"), Some(Path::new("auto_vhost/a")));
    assert_eq!(bundle.path_of("auto_vhost/ba.conf"), None);
}
