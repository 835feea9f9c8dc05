//! Reading the tables of a page, and the numbers in them and in the code.

/// The cells of the first table below the heading `heading`, without the table's own heading.
///
/// # Panics
/// When the page has no such heading, or no table below it.
pub fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let level = heading.split(' ').next().expect("the marks of a heading").len();
    let ends = |line: &str| {
        let marks = line.len() - line.trim_start_matches('#').len();
        (1..=level).contains(&marks) && line[marks..].starts_with(' ')
    };
    let section = page.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !ends(line));
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut in_table = false;
    let mut in_subsection = false;
    for line in section {
        in_subsection |= line.starts_with('#');
        let Some(inside) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        // The first table of a section is the list; what stands under a smaller heading has its own subject.
        if in_subsection {
            break;
        }
        let cells: Vec<String> = inside.split('|').map(|cell| cell.trim().to_owned()).collect();
        if cells.iter().all(|cell| cell.starts_with("---")) {
            rows.pop();
            in_table = true;
        } else {
            rows.push(cells);
            assert!(in_table || rows.len() == 1, "two tables under {heading}");
        }
    }
    assert!(!rows.is_empty(), "no table under {heading}");
    rows
}

/// The number that a page shows: `10,000`, `64 KiB`, `1 MiB`; times (`10 s`, `20 ms`, `5 us`) in microseconds.
pub fn shown(text: &str) -> Option<u128> {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let unit = match unit {
        "" | "us" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    number.replace(',', "").parse::<u128>().ok().map(|number| number * unit)
}

/// The value of a constant's expression: numbers, their products and shifts; a `Duration` in microseconds.
pub fn evaluate(expression: &str) -> Option<u128> {
    let expression = expression.trim();
    for (call, unit) in [("from_micros", 1), ("from_millis", 1_000), ("from_secs", 1_000_000)] {
        if let Some(argument) = expression.strip_prefix(&format!("Duration::{call}(")) {
            return evaluate(argument.strip_suffix(')')?).map(|value| value * unit);
        }
    }
    if let Some((left, right)) = expression.split_once("<<") {
        return Some(evaluate(left)? << evaluate(right)?);
    }
    expression.split('*').map(|factor| factor.trim().replace('_', "").parse::<u128>().ok()).product()
}

#[test]
fn numbers_of_pages_and_of_code_are_read() {
    for (page, code) in [
        ("256", "256"),
        ("16,384", "16 * 1024"),
        ("16 KiB", "16 * 1024"),
        ("256 MiB", "256 << 20"),
        ("1 MiB", "1024 * 1024"),
        ("10,000", "10_000"),
        ("100 ms", "Duration::from_millis(100)"),
        ("10 s", "Duration::from_secs(10)"),
    ] {
        assert_eq!(shown(page), evaluate(code), "{page} and {code}");
        assert!(shown(page).is_some());
    }
    assert_ne!(shown("1 KiB"), evaluate("1000"));
    assert_eq!((shown("many"), evaluate("OTHER + 1")), (None, None));
}

#[test]
fn only_the_table_of_the_section_is_read() {
    let page = "# A\n\n## B\n\n| x | y |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\n### C\n\n| z |\n|---|\n| 9 |\n\n\
                ## D\n\n| 5 | 6 |\n";
    assert_eq!(rows(page, "## B"), [["1", "2"], ["3", "4"]]);
    assert_eq!(rows(page, "### C"), [["9"]]);
}
