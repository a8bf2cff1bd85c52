//! The documents of a YAML text, told apart by the lines that separate them. A parser stops at the
//! first mistake in its text; so each document is read alone, and mistakes in all of them are found.

/// One or more documents, and the line that they begin on, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub(super) line: usize,
    pub(super) text: &'a str,
}

/// Cuts before every line that begins with `---`, wherever it stands: YAML lets no scalar, quoted or
/// not, hold such a line. What stands before a document without being one, comments and directives,
/// stays with it.
pub(super) fn documents(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut chunks, mut start, mut has_content) = (Vec::new(), 0, false);
    let mut first_line = 1;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if has_content && separates(line) {
            let part = &text[start..end];
            chunks.push(Chunk { line: first_line, text: part });
            first_line += breaks(part);
            start = end;
        }
        has_content |= !is_prelude(line);
        end += line.len();
    }
    chunks.push(Chunk { line: first_line, text: &text[start..] });
    chunks
}

fn separates(line: &str) -> bool {
    let rest = line.strip_prefix("---");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Nothing, a comment or a directive.
fn is_prelude(line: &str) -> bool {
    let content = line.trim();
    content.is_empty() || content.starts_with('#') || line.starts_with('%')
}

/// Line breaks as YAML counts them.
fn breaks(text: &str) -> usize {
    let bytes = text.as_bytes();
    let alone = |at: usize| bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n');
    (0..bytes.len()).filter(|at| bytes[*at] == b'\n' || alone(*at)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<(usize, &str)> {
        documents(text).into_iter().map(|chunk| (chunk.line, chunk.text)).collect()
    }

    #[test]
    fn each_separator_begins_a_document() {
        assert_eq!(cut(""), [(1, "")]);
        assert_eq!(cut("a: 1\n---\nb: 2"), [(1, "a: 1\n"), (2, "---\nb: 2")]);
        assert_eq!(cut("---\r\na\r\n--- b\r\n"), [(1, "---\r\na\r\n"), (3, "--- b\r\n")]);
        assert_eq!(cut("a\rb\n---"), [(1, "a\rb\n"), (3, "---")]);
    }

    #[test]
    fn comments_and_directives_stay_with_what_follows() {
        assert_eq!(cut("\u{feff}# c\n\n%YAML 1.2\n---\na"), [(1, "# c\n\n%YAML 1.2\n---\na")]);
    }

    #[test]
    fn other_dashes_are_no_separators() {
        for text in ["a\n----\n", "a: |\n  ---\n", "a\n---b\n"] {
            assert_eq!(cut(text), [(1, text)]);
        }
    }
}
