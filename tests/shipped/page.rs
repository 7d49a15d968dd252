//! The page's three files: small, without anything from elsewhere, and without a way for text to become markup.
//! What it does in a browser is asked by `make clients-test`.

use std::path::Path;

const LARGEST_BYTES: usize = 80 << 10;

/// Ways of a script to make markup, or a program, of text.
const MAKES_MARKUP: &[&str] = &[
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "createContextualFragment",
    "DOMParser",
    "srcdoc",
    "setHTML",
    "eval(",
    "new Function",
    "javascript:",
];

fn file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/publish/http/page");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// The values of an attribute, wherever it stands.
fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
    let opening = format!(" {attribute}=\"");
    let parts = html.split(opening.as_str()).skip(1);
    parts.filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn the_page_is_small_and_has_nothing_from_elsewhere() {
    let files = ["index.html", "page.js", "page.css"].map(file);
    let bytes: usize = files.iter().map(String::len).sum();
    assert!(bytes < LARGEST_BYTES, "{bytes} bytes");
    let [html, script, style] = files;
    assert_eq!(values(&html, "src"), ["/page.js"]);
    let links: Vec<&str> = values(&html, "href")
        .into_iter()
        .filter(|link| !link.starts_with('#'))
        .collect();
    assert_eq!(links, ["data:,", "/page.css"]);
    // The one address is the name of a kind of markup.
    assert_eq!(script.matches("://").count(), 1);
    assert!(script.contains("\"http://www.w3.org/2000/svg\""));
    assert!(!style.contains("url(") && !style.contains("@import"));
}

#[test]
fn what_comes_from_outside_stays_text() {
    let script = file("page.js");
    for way in MAKES_MARKUP {
        assert!(!script.contains(way), "{way}");
    }
    // The policy that the door sends with it allows no script and no style in the markup.
    let html = file("index.html");
    assert_eq!(html.matches("<script").count(), 1);
    assert!(html.contains("<script type=\"module\" src=\"/page.js\"></script>"));
    assert!(!html.contains("<style") && values(&html, "style").is_empty());
    let names = html
        .split("=\"")
        .filter_map(|before| before.rsplit([' ', '"']).next());
    let handlers: Vec<&str> = names.filter(|name| name.starts_with("on")).collect();
    assert_eq!(handlers, [""; 0]);
}
