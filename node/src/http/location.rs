//! Which location a URI belongs to: exact, longest prefix, `^~`, expressions in order, the same again inside.

use std::sync::Arc;

use dysvr_conf::http::Handler;
use dysvr_conf::model::{Location, Locations, Pattern};

use super::captures::Captures;

/// The outcome of a search.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The location; `None`: the server's own configuration.
    pub location: Option<Arc<Location>>,
    /// The groups of the expression that led there, and which variables they set.
    pub captures: Option<(Captures, Arc<Location>)>,
    /// `/x` was asked for, and `/x/` passes to an upstream: answered with a redirect.
    pub add_slash: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Static {
    None,
    Exact,
    Prefix,
    AddSlash,
}

/// Finds the location of a URI. Gives an error text when an expression fails to run.
pub(super) fn find(locations: &Locations, uri: &[u8]) -> Result<Search, String> {
    let mut search = Search::default();
    descend(locations, uri, &mut search)?;
    Ok(search)
}

/// True when the search is over: an exact match, a redirect or an expression.
fn descend(locations: &Locations, uri: &[u8], search: &mut Search) -> Result<bool, String> {
    let mut no_regex = false;
    match find_static(&locations.prefixes, uri, search) {
        Static::Exact => return Ok(true),
        Static::AddSlash => {
            search.add_slash = true;
            return Ok(true);
        }
        Static::None => {}
        Static::Prefix => {
            if let Some(found) = search.location.clone() {
                no_regex = matches!(found.pattern, Pattern::Prefix { no_regex: true, .. });
                if descend(&found.nested, uri, search)? {
                    return Ok(true);
                }
            }
        }
    }
    if !no_regex {
        for location in &locations.regexes {
            let Pattern::Regex { regex, groups: _ } = &location.pattern else { continue };
            if let Some(captures) = Captures::run(regex, uri)? {
                search.captures = Some((captures, Arc::clone(location)));
                search.location = Some(Arc::clone(location));
                descend(&location.nested, uri, search)?;
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The named location of a name with its `@`.
pub(super) fn find_named(locations: &Locations, name: &[u8]) -> Option<Arc<Location>> {
    let is_it =
        |location: &&Arc<Location>| matches!(&location.pattern, Pattern::Named(known) if known.as_bytes() == name);
    locations.named.iter().find(is_it).cloned()
}

fn path_of(location: &Location) -> &[u8] {
    match &location.pattern {
        Pattern::Exact(path) | Pattern::Prefix { path, .. } | Pattern::Named(path) => path.as_bytes(),
        Pattern::Regex { .. } => b"",
    }
}

/// Looks in the sorted list. The longest pattern that is a prefix of `uri` stands before `uri` in it; whatever stands
/// between the two shares at most a shorter prefix with `uri`, so each step cuts `uri` down to that and looks again.
fn find_static(sorted: &[Arc<Location>], uri: &[u8], search: &mut Search) -> Static {
    let mut end = sorted.len();
    let mut limit = uri;
    let mut best = None;
    loop {
        end = sorted[..end].partition_point(|location| path_of(location) <= limit);
        if end == 0 {
            break;
        }
        let candidate = &sorted[end - 1];
        let path = path_of(candidate);
        let common = path.iter().zip(limit).take_while(|(a, b)| a == b).count();
        if common == path.len() {
            match &candidate.pattern {
                Pattern::Exact(_) if path.len() < uri.len() => {
                    end -= 1;
                    continue;
                }
                _ => best = Some(end - 1),
            }
            break;
        }
        limit = &limit[..common];
    }
    // Of equal patterns the exact one stands first.
    if let Some(at) = best {
        let exact = at.checked_sub(1).map(|before| &sorted[before]).filter(|other| path_of(other) == uri);
        let found = match exact {
            Some(exact) if path_of(&sorted[at]) == uri => exact,
            _ => &sorted[at],
        };
        search.location = Some(Arc::clone(found));
        if matches!(found.pattern, Pattern::Exact(_)) {
            return Static::Exact;
        }
        if path_of(found) == uri {
            return Static::Prefix;
        }
    }
    if adds_slash(sorted, uri) {
        return Static::AddSlash;
    }
    if best.is_some() { Static::Prefix } else { Static::None }
}

/// Whether `uri` plus a slash is a prefix location that passes to an upstream.
fn adds_slash(sorted: &[Arc<Location>], uri: &[u8]) -> bool {
    let with_slash = |location: &Location| {
        let path = path_of(location);
        path.len() == uri.len() + 1 && path.starts_with(uri) && path.ends_with(b"/")
    };
    // What begins with `uri` and `/` follows `uri` itself and what continues it with a smaller byte.
    let at = sorted.partition_point(|location| {
        let path = path_of(location);
        let head = &path[..path.len().min(uri.len())];
        (head, path.get(uri.len()).copied()) < (uri, Some(b'/'))
    });
    sorted[at..].iter().take_while(|location| with_slash(location)).any(|location| {
        matches!(location.pattern, Pattern::Prefix { .. }) && matches!(location.conf.handler, Some(Handler::Proxy(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dysvr_conf::http::LocConf;
    use dysvr_conf::http::proxy::{Pass, Target};
    use dysvr_conf::regex::Regex;

    fn location(pattern: Pattern, proxied: bool, nested: Locations) -> Arc<Location> {
        let pass = Pass { target: Target::Upstream(0), host: "u".into(), port: "80".into(), uri: None, replaced: 0 };
        let conf = LocConf { handler: proxied.then(|| Handler::Proxy(Arc::new(pass))), ..LocConf::default() };
        Arc::new(Location { pattern, conf: Arc::new(conf), script: Box::default(), nested })
    }

    fn prefix(path: &str) -> Pattern {
        Pattern::Prefix { path: path.into(), no_regex: false }
    }

    fn sorted(mut all: Vec<Arc<Location>>) -> Box<[Arc<Location>]> {
        all.sort_by(|a, b| {
            let rank = |location: &Location| !matches!(location.pattern, Pattern::Exact(_));
            path_of(a).cmp(path_of(b)).then(rank(a).cmp(&rank(b)))
        });
        all.into()
    }

    fn show(search: &Search) -> String {
        let name = match &search.location {
            None => "-".to_owned(),
            Some(found) => match &found.pattern {
                Pattern::Exact(path) => format!("= {path}"),
                Pattern::Prefix { path, no_regex: false } => path.to_string(),
                Pattern::Prefix { path, no_regex: true } => format!("^~ {path}"),
                Pattern::Regex { regex, .. } => format!("~ {}", regex.pattern()),
                Pattern::Named(name) => name.to_string(),
            },
        };
        if search.add_slash { format!("{name} +/") } else { name }
    }

    #[test]
    fn nginx_s_order() {
        let regex = |text: &str| Pattern::Regex { regex: Regex::new(text, false).unwrap(), groups: Box::default() };
        let inner = Locations {
            prefixes: [location(prefix("/nest/in"), false, Locations::default())].into(),
            regexes: [location(regex(r"\.x$"), false, Locations::default())].into(),
            named: Box::default(),
        };
        let all = Locations {
            prefixes: sorted(vec![
                location(prefix("/"), false, Locations::default()),
                location(Pattern::Exact("/".into()), false, Locations::default()),
                location(prefix("/a"), false, Locations::default()),
                location(prefix("/a/b"), false, Locations::default()),
                location(Pattern::Exact("/a/b".into()), false, Locations::default()),
                location(prefix("/a/c/"), true, Locations::default()),
                location(prefix("/a/c-d"), false, Locations::default()),
                location(Pattern::Prefix { path: "/img/".into(), no_regex: true }, false, Locations::default()),
                location(prefix("/nest/"), false, inner),
            ]),
            regexes: [
                location(regex(r"\.png$"), false, Locations::default()),
                location(regex(r"^/a/.*png"), false, Locations::default()),
            ]
            .into(),
            named: [location(Pattern::Named("@n".into()), false, Locations::default())].into(),
        };
        let table = [
            ("/", "= /"),
            ("/zzz", "/"),
            ("/a", "/a"),
            ("/a/b", "= /a/b"),
            ("/a/bc", "/a/b"),
            ("/a/b/c", "/a/b"),
            ("/a/c", "/a +/"),
            ("/a/c/", "/a/c/"),
            ("/a/c/d", "/a/c/"),
            ("/a/c-", "/a"),
            ("/x.png", r"~ \.png$"),
            ("/a/pngs", r"~ ^/a/.*png"),
            ("/img/x.png", "^~ /img/"),
            ("/nest/y", "/nest/"),
            ("/nest/in.png", r"~ \.png$"),
            ("/nest/in.x", r"~ \.x$"),
            ("/nest/inner", "/nest/in"),
        ];
        for (uri, expected) in table {
            assert_eq!(show(&find(&all, uri.as_bytes()).unwrap()), expected, "{uri}");
        }
        assert!(find_named(&all, b"@n").is_some() && find_named(&all, b"@m").is_none());
    }

    #[test]
    fn agrees_with_a_linear_search() {
        let seed = 0x5eed_u64;
        let mut state = seed;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..500 {
            let mut text = |max: u64| -> String {
                let len = random(max);
                std::iter::once('/').chain((0..len).map(|_| ['/', 'a', 'b'][random(3) as usize])).collect()
            };
            let mut paths: Vec<(String, bool)> = (0..12).map(|i| (text(5), i % 3 == 0)).collect();
            paths.sort();
            paths.dedup();
            let all = Locations {
                prefixes: sorted(
                    paths
                        .iter()
                        .map(|(path, exact)| {
                            let pattern = if *exact { Pattern::Exact(path.as_str().into()) } else { prefix(path) };
                            location(pattern, false, Locations::default())
                        })
                        .collect(),
                ),
                ..Locations::default()
            };
            for _ in 0..20 {
                let uri = text(7);
                let exact =
                    paths.iter().find(|(path, exact)| *exact && *path == uri).map(|(path, _)| format!("= {path}"));
                let longest = paths
                    .iter()
                    .filter(|(path, exact)| !exact && uri.starts_with(path.as_str()))
                    .max_by_key(|(path, _)| path.len())
                    .map(|(path, _)| path.clone());
                let expected = exact.or(longest).unwrap_or_else(|| "-".to_owned());
                let got = show(&find(&all, uri.as_bytes()).unwrap());
                assert_eq!(got, expected, "seed {seed} round {round}: {uri} among {paths:?}");
            }
        }
    }
}
