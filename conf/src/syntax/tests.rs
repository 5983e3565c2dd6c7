use proptest::prelude::*;

use super::*;

/// The tree as one line: words in `‹›`, blocks in `{}`.
fn show(directives: &[Directive<'_>]) -> String {
    let mut out = String::new();
    for directive in directives {
        for word in directive.words {
            out += &format!("‹{}›", word.text);
        }
        match &directive.block {
            Some(block) => out += &format!("{{{}}}", show(block.directives)),
            None => out.push(';'),
        }
    }
    out
}

#[test]
fn words_follow_nginx() {
    for (text, expected) in [
        ("a b c;", "‹a›‹b›‹c›;"),
        ("a\n\tb\r\n  c\n;", "‹a›‹b›‹c›;"),
        ("a{b;}c d{}", "‹a›{‹b›;}‹c›‹d›{}"),
        ("a # c ; {\nb;", "‹a›‹b›;"),
        ("a#b;", "‹a#b›;"),
        ("a \"b c;{}\" 'd \"';", "‹a›‹b c;{}›‹d \"›;"),
        (r#"a "\"" '\'' \" "\t\r\n\\" "\d";"#, "‹a›‹\"›‹'›‹\"›‹\t\r\n\\›‹\\d›;"),
        (r"a \;b c\ d;", r"‹a›‹\;b›‹c\ d›;"),
        ("a ${b}c;", "‹a›‹${b}c›;"),
        ("a $b{c;}", "‹a›‹$b›{‹c›;}"),
        ("a ${{b;", "‹a›‹${{b›;"),
        ("location ~ ^/a{2}$ { b; }", "‹location›‹~›‹^/a›{‹2}$›{‹b›;}}"),
        ("a b}c;", "‹a›‹b}c›;"),
        ("a b\"c;", "‹a›‹b\"c›;"),
        ("if ($a = \"\"){b;}", "‹if›‹($a›‹=›‹›‹)›{‹b›;}"),
        ("a \"\";", "‹a›‹›;"),
        ("a 日本;", "‹a›‹日本›;"),
    ] {
        assert_eq!(show(parse(text.as_bytes(), &Arena::new()).directives), expected, "{text:?}");
    }
}

#[test]
fn errors_are_all_found() {
    for (text, expected) in [
        ("", ""),
        ("a;", ""),
        ("a", "1: unexpected end of file, expecting \";\" or \"}\""),
        ("a\n", "2: unexpected end of file, expecting \";\" or \"}\""),
        ("a {\nb;\n", "3: unexpected end of file, expecting \"}\""),
        ("a { b", "1: unexpected end of file, expecting \";\" or \"}\""),
        ("a { b }", "1: unexpected \"}\""),
        ("}", "1: unexpected \"}\""),
        ("a;;", "1: unexpected \";\""),
        ("{}", "1: unexpected \"{\""),
        ("a \"b\"c;", "1: unexpected \"c\""),
        ("a \"b\"#c;\n;", "1: unexpected \"#\""),
        ("a \"b;\n", "2: unexpected end of file, expecting \";\" or \"}\""),
        ("a 'b\\'", "1: unexpected end of file, expecting \";\" or \"}\""),
        ("a \\", "1: unexpected end of file, expecting \";\" or \"}\""),
        ("a;;\n;\nb {\n c }\n;", "1: unexpected \";\"\n2: unexpected \";\"\n4: unexpected \"}\"\n5: unexpected \";\""),
    ] {
        let found: Vec<_> = parse(text.as_bytes(), &Arena::new())
            .errors
            .iter()
            .map(|error| format!("{}: {}", error.at.line, error.text))
            .collect();
        assert_eq!(found.join("\n"), expected, "{text:?}");
    }
}

#[test]
fn long_words_are_refused_as_by_nginx() {
    let text = format!("a;\nb \"{}\";", "x".repeat(5000));
    let errors = parse(text.as_bytes(), &Arena::new()).errors;
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].at.line, 2);
    assert_eq!(errors[0].text, "too long parameter, probably missing terminating \"\"\" character");
    let text = format!("b {};", "x".repeat(5000));
    assert_eq!(parse(text.as_bytes(), &Arena::new()).errors[0].text, "too long parameter \"xxxxxxxxxx...\" started");
}

#[test]
fn depth_is_bounded() {
    let text = "a{".repeat(100_000);
    assert_eq!(parse(text.as_bytes(), &Arena::new()).errors[0].text, "blocks are nested too deeply");
    let text = "a{".repeat(MAX_DEPTH) + &"}".repeat(MAX_DEPTH);
    assert_eq!(parse(text.as_bytes(), &Arena::new()).errors, []);
}

#[test]
fn places_are_those_of_the_text() {
    let arena = Arena::new();
    let tree = parse(b"a;\n  b\n  c {\n d;\n}\n", &arena);
    let b = &tree.directives[1];
    assert_eq!((b.start(), b.words[1].at), (Position { offset: 5, line: 2 }, Position { offset: 9, line: 3 }));
    assert_eq!(b.end, Position { offset: 11, line: 3 });
    assert_eq!(b.block.as_ref().unwrap().close, Position { offset: 17, line: 5 });
}

proptest! {
    #[test]
    fn any_bytes_are_parsed(text in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = parse(&text, &Arena::new());
    }

    #[test]
    fn any_marks_are_parsed(text in "[ab \n;{}\"'\\\\$#]{0,60}") {
        let arena = Arena::new();
    let tree = parse(text.as_bytes(), &arena);
        let lines = text.bytes().filter(|byte| *byte == b'\n').count() as u32 + 1;
        for error in tree.errors {
            prop_assert!(error.at.line <= lines && error.at.offset as usize <= text.len());
        }
    }

    /// Quoting any words gives them back.
    #[test]
    fn quoted_words_survive(words in prop::collection::vec("[^\0]{0,20}", 1..5)) {
        let quote = |word: &String| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
        let text = words.iter().map(quote).collect::<Vec<_>>().join(" ") + ";";
        let arena = Arena::new();
    let tree = parse(text.as_bytes(), &arena);
        prop_assert_eq!(&tree.errors, &[]);
        prop_assert_eq!(tree.directives[0].words.iter().map(|word| word.text.to_string()).collect::<Vec<_>>(), words);
    }
}
