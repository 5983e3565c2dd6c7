//! Differences between two texts as `diff -u` prints them.

use dysvr_conf::digest::Digest;
use dysvr_conf::http::ssl::holds_key;
use owo_colors::AnsiColors;
use similar::TextDiff;

use super::output::{Output, printable};
use super::view::ChangeKind;

/// One file's difference, ended by a newline; empty when there is none. Of a private key only that it differs.
pub fn unified(before_label: &str, after_label: &str, before: &[u8], after: &[u8]) -> String {
    if holds_key(before) || holds_key(after) {
        let shown = |content: &[u8]| match content.is_empty() {
            true => String::new(),
            false => format!("(a private key, SHA-256 {})\n", Digest::of(content)),
        };
        let (before, after) = (shown(before), shown(after));
        let diff = TextDiff::from_lines(&before, &after);
        return diff.unified_diff().header(before_label, after_label).to_string();
    }
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
    let diff = TextDiff::from_lines(&*before, &*after);
    diff.unified_diff().context_radius(3).header(before_label, after_label).to_string()
}

/// The labels of a change: what the fleet has against what it would have; `/dev/null` where there is nothing.
pub fn labels(kind: ChangeKind, before: &str, after: &str) -> (String, String) {
    let nothing = || "/dev/null".to_owned();
    match kind {
        ChangeKind::Add => (nothing(), after.to_owned()),
        ChangeKind::Delete => (before.to_owned(), nothing()),
        ChangeKind::Modify | ChangeKind::Unknown => (before.to_owned(), after.to_owned()),
    }
}

/// The same in colours, if they are wanted.
pub fn painted(diff: &str, output: Output) -> String {
    if !output.color {
        return diff.to_owned(); // byte for byte, for a file or a program
    }
    let diff = printable(diff);
    let mut text = String::with_capacity(diff.len() * 2);
    for line in diff.split_inclusive('\n') {
        let color = match line.as_bytes() {
            [b'@', ..] => AnsiColors::Cyan,
            [b'+', ..] => AnsiColors::Green,
            [b'-', ..] => AnsiColors::Red,
            _ => {
                text.push_str(line);
                continue;
            }
        };
        let end = if line.ends_with('\n') { "\n" } else { "" };
        text.push_str(&output.paint(line.trim_end_matches('\n'), color));
        text.push_str(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown() {
        let key = |secret: &str| format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
        let text = unified("a", "b", key("one").as_bytes(), key("two").as_bytes());
        assert!(!text.contains("one") && !text.contains("two") && text.contains("-(a private key, SHA-256 "), "{text}");
        assert_eq!(unified("a", "b", key("one").as_bytes(), key("one").as_bytes()), "");
        assert!(!unified("/dev/null", "b", b"", key("one").as_bytes()).contains("one"));
    }

    #[test]
    fn a_change_reads_as_diff_prints_it() {
        let text = unified("a", "b", b"one\ntwo\nthree\n", b"one\n2\nthree");
        let wanted = "\
--- a
+++ b
@@ -1,3 +1,3 @@
 one
-two
-three
+2
+three
\\ No newline at end of file
";
        assert_eq!(text, wanted);
        assert_eq!(unified("a", "b", b"same\n", b"same\n"), "");
        let (before, after) = labels(ChangeKind::Add, "head", "a.conf");
        assert_eq!((before.as_str(), after.as_str()), ("/dev/null", "a.conf"));
    }

    #[test]
    fn colours_do_not_change_the_text() {
        let diff = unified("a", "b", b"one\n", b"two\n");
        let color = Output { color: true, terminal: true };
        let painted = painted(&diff, color);
        assert!(painted.contains("\u{1b}[32m+two"), "{painted:?}");
        assert_eq!(painted.lines().count(), diff.lines().count());
    }
}
