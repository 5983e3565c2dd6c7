//! The condition of an `if`, from words that may hold its parentheses or stand beside them.

use super::{Condition, FileTest};
use crate::directive::Done;
use crate::load::{Call, Fault};

/// Reads the condition of an `if`.
pub(crate) fn condition(call: &mut Call<'_, '_>) -> Done<Condition> {
    let words = without_parentheses(call)?;
    let invalid = |word: &str| Fault(format!("invalid condition \"{word}\""));
    let first = words[0];
    if first.len() > 1 && first.starts_with('$') {
        if words.len() != 1 && words.len() != 3 {
            return Err(invalid(first));
        }
        let left = call.variable(&first[1..])?;
        let [_, operator, right] = words[..] else {
            return Ok(Condition::True(left));
        };
        return match operator {
            "=" | "!=" => {
                Ok(Condition::Equal { left, right: call.template(right)?, negate: operator == "!=" })
            }
            "~" | "~*" | "!~" | "!~*" => {
                let (regex, groups) = call.regex_with_groups(right, operator.ends_with('*'))?;
                Ok(Condition::Match { value: left, regex, groups, negate: operator.starts_with('!') })
            }
            _ => Err(format!("unexpected \"{operator}\" in condition").into()),
        };
    }
    let (test, negate) = first.strip_prefix('!').map_or((first, false), |test| (test, true));
    if test.len() != 2 || !test.starts_with('-') {
        return Err(invalid(first));
    }
    let [_, path] = words[..] else {
        return Err(invalid(first));
    };
    let path = call.template(path)?;
    let test = match test {
        "-f" => FileTest::File,
        "-d" => FileTest::Directory,
        "-e" => FileTest::Exists,
        "-x" => FileTest::Executable,
        _ => return Err(invalid(first)),
    };
    Ok(Condition::File { test, path, negate })
}

/// The words between `(` and `)`; at least one.
fn without_parentheses<'a>(call: &Call<'_, 'a>) -> Done<Vec<&'a str>> {
    let mut words: Vec<&str> = call.arguments().iter().map(|word| word.text).collect();
    let invalid = |word: &str| Fault(format!("invalid condition \"{word}\""));
    let last = words.len() - 1;
    match words[0].strip_prefix('(') {
        Some(rest) => words[0] = rest,
        None => return Err(invalid(words[0])),
    }
    match words[last].strip_suffix(')') {
        Some(rest) => words[last] = rest,
        None => return Err(invalid(words[last])),
    }
    // A parenthesis that stood alone leaves no word. An empty word between the two is one.
    if call.arg(last + 1) == ")" {
        words.pop();
    }
    if call.arg(1) == "(" && !words.is_empty() {
        words.remove(0);
    }
    if words.is_empty() || words == [""] {
        return Err(invalid(")"));
    }
    Ok(words)
}
