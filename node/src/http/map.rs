//! `map`: exact values, wildcards of host names, expressions in order, the default.

use dysvr_conf::http::map::Map;
use dysvr_conf::template::Template;

use super::captures::Captures;
use super::request::Request;
use super::{template, variable};

/// Appends the value of a map's variable.
pub(super) fn append(request: &Request, index: u16, out: &mut Vec<u8>) -> bool {
    let main = std::sync::Arc::clone(&request.main);
    let Some(map) = main.map.maps.get(usize::from(index)) else { return false };
    let source = template::value(request, &map.source);
    let mut key = String::from_utf8_lossy(&source).to_lowercase();
    if map.hostnames && key.ends_with('.') {
        key.pop();
    }
    if let Some(value) = find(map, &key) {
        template::append(request, value, out);
        return true;
    }
    for (regex, value) in &map.regexes {
        match Captures::run(regex, &source) {
            Ok(Some(captures)) => {
                append_with(request, value, &captures, out);
                return true;
            }
            Ok(None) => {}
            Err(error) => {
                request.error(
                    dysvr_conf::main_conf::Level::Error,
                    format_args!("{error} on \"{key}\" using \"{}\"", regex.pattern()),
                );
            }
        }
    }
    template::append(request, &map.default, out);
    true
}

fn find<'a>(map: &'a Map, key: &str) -> Option<&'a Template> {
    if let Some(value) = map.exact.get(key) {
        return Some(value);
    }
    if !map.hostnames {
        return None;
    }
    let leading = key.match_indices('.').filter(|(at, _)| *at > 0).find_map(|(at, _)| map.leading.get(&key[at + 1..]));
    leading.or_else(|| key.rmatch_indices('.').find_map(|(at, _)| map.trailing.get(&key[..at])))
}

/// The value of a template whose groups are those of the map's own expression.
fn append_with(request: &Request, value: &Template, captures: &Captures, out: &mut Vec<u8>) {
    use dysvr_conf::template::Part;
    use dysvr_conf::variable::Variable;
    for part in &*value.parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Variable(Variable::Capture(group)) => out.extend_from_slice(captures.get(*group).unwrap_or_default()),
            Part::Variable(other) => drop(variable::append(request, other, out)),
        }
    }
}
