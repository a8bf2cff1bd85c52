//! Whatever a file holds, it is read or refused with a place; nothing panics and nothing hangs.

use proptest::prelude::*;

use super::read;

/// Demands an answer, and that what is refused has a place.
fn answers(text: &str) -> Result<(), TestCaseError> {
    if let Err(failure) = read(text) {
        for line in failure.to_string().lines().skip(1) {
            let mut parts = line.splitn(4, ':');
            prop_assert_eq!(parts.next(), Some("f"), "{}", line);
            for _ in 0..2 {
                let number = parts.next().and_then(|part| part.parse::<usize>().ok());
                prop_assert!(number.is_some_and(|number| number > 0), "{:?}: {}", text, line);
            }
        }
    }
    Ok(())
}

const WORDS: &[&str] = &[
    "kind: Policy\n",
    "kind: Node\n",
    "kind: Network\n",
    "name: a\n",
    "labels:\n",
    "  role: db\n",
    "expect:\n",
    "- a sees b\n",
    "---\n",
    "...\n",
    "--- ",
    "%YAML 1.2\n",
    "&a ",
    "*a ",
    "*b",
    "!!str ",
    "!x ",
    "[",
    "]",
    "{",
    "}",
    ",",
    ": ",
    "? ",
    "- ",
    "| \n",
    "> \n",
    "'",
    "\"",
    "\\",
    "#",
    "\t",
    "\r",
    "\n",
    "  ",
    "<<: ",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\0",
    "é",
    "from: ''\n",
    "to: a=b\n",
    "1",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        answers(&text)?;
    }

    #[test]
    fn any_mixture_of_yamls_own_words_is_answered(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..40)
    ) {
        answers(&words.concat())?;
    }
}

#[test]
fn depth_and_aliases_are_bounded() {
    for (text, expected) in [
        ("[".repeat(100_000), "f:1:256: not YAML: recursion limit exceeded"),
        ("[".repeat(100), "f:1:65: more than 64 levels deep"),
        ("- ".repeat(100_000), "f:1:129: more than 64 levels deep"),
        ("{a: ".repeat(100), "more than 64 levels deep"),
    ] {
        let said = read(&text).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    // Each line stands for ten of the one before: a billion values.
    let mut bomb = "a0: &a0 x\n".to_owned();
    for level in 1..10 {
        let ten = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{ten}]\n");
    }
    let said = read(&bomb).unwrap_err().to_string();
    assert!(said.contains("aliases stand for more than 100000 values"), "{said}");
    // Each anchor names all that the ones inside of it do.
    let open: String = (0..60).map(|level| format!("&a{level} [")).collect();
    let nested = format!("{open}{}{}", "x,".repeat(5000), "]".repeat(60));
    let said = read(&nested).unwrap_err().to_string();
    assert!(said.contains("anchors and aliases stand for more than 100000 values"), "{said}");
}

/// Looked through for each key, this many would take minutes.
#[test]
fn a_mapping_with_very_many_keys_is_read_at_once() {
    let keys: String = (0..200_000).map(|n| format!("  k{n}: v\n")).collect();
    let begun = std::time::Instant::now();
    let said = read(&format!("kind: Node\nname: a\nlabels:\n{keys}")).unwrap_err().to_string();
    assert!(said.ends_with("f:4:3: labels: at most 32 labels, got 200000"), "{said}");
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
