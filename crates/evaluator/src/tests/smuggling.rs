//! Pages that save a file, by themselves or after a click.

use std::time::Instant;

use proptest::{collection::vec, prelude::*};

use super::{SUPPLIED, assert_matches, assert_matches_in_all_encodings, evaluate, utf16};
use crate::{report::NoteKind, structure::ContentStructure};

const FILE: &str = "const d=\"VGhpcyBpcyBhIGZpbGUu\";";

/// Code that prepares a link; `a.click()` saves the file.
const LINK: &str = "const b=new Blob([Uint8Array.from(atob(d),c=>c.charCodeAt(0))]);\
    const a=document.createElement('a');a.href=URL.createObjectURL(b);a.download='i.zip';";

fn page(script: &str) -> String {
    format!(
        "<!doctype html><html><body><button id=s onclick=save()>x</button><script>{script}</script></body></html>"
    )
}

fn assert_smuggles(script: &str) {
    assert_matches(script, page(script).as_bytes(), &["HTML_Smuggles_File"]);
}

fn assert_harmless(script: &str) {
    assert_matches(script, page(script).as_bytes(), &[]);
}

/// Returns code that prepares and saves a file.
fn save() -> String {
    format!("{FILE}{LINK}a.click();")
}

#[test]
fn code_that_runs_by_itself_is_found() {
    let save = save();
    for script in [
        save.clone(),
        format!("(function(){{{save}}})()"),
        format!("(function(){{{save}}}())"),
        format!("!function(){{{save}}}();"),
        format!("(()=>{{{save}}})()"),
        format!("(async()=>{{await 1;{save}}})()"),
        format!("(function(){{{save}}}).call(this)"),
        format!("window.onload=function(){{{save}}}"),
        format!("onload=()=>{{{save}}}"),
        format!("function go(){{{save}}}\nwindow.onload=go;"),
        format!("window.addEventListener('load',()=>{{{save}}})"),
        format!("document.addEventListener(\"DOMContentLoaded\",go);function go(){{{save}}}"),
        format!("document.onmousemove=function(){{{save}}}"),
        format!("$(document).ready(function(){{{save}}})"),
        format!("$(function(){{{save}}})"),
        format!("setTimeout(function(){{{save}}},500)"),
        format!("setTimeout((()=>{{{save}}}),500)"),
        format!("const go=()=>{{{save}}};setTimeout(go,500)"),
        format!("var o={{run:function(){{{save}}}}};o.run()"),
        format!("var o={{run(){{{save}}}}};o.run()"),
        format!("class A{{constructor(){{{save}}}}}new A()"),
        format!("new Promise(r=>setTimeout(r,9)).then(()=>{{{save}}})"),
        format!("for(const x of [1]){{if(/[/]{{/.test(x)||true){{{save}}}}}"),
        format!("const t=`${{[1].map(x=>{{return `{{`}})}}`;{save}"),
    ] {
        assert_smuggles(&script);
    }
}

#[test]
fn other_ways_to_save_a_file_are_found() {
    let press =
        "var a=document.createElement('a');a.href=URL.createObjectURL(b);a.download='x';a.click();";
    for script in [
        format!("{FILE}{LINK}a.dispatchEvent(new MouseEvent('click'))"),
        format!("{FILE}navigator.msSaveOrOpenBlob(new Blob([atob(d)]),'x')"),
        format!("{FILE}location.href=URL.createObjectURL(new Blob([atob(d)]))"),
        format!("{FILE}window.open(window.URL.createObjectURL(new Blob([atob(d)])))"),
        format!(
            "{FILE}var a=document.createElement('a');a.href='data:a/b;base64,'+d;a.download='x';a.click()"
        ),
        format!("var b=new Blob([new Uint8Array([77,90,144,0,3,0,0,0,4,0,0,0])]);{press}"),
        format!(
            "var r=[];for(var h='4d5a9000',i=0;i<8;i+=2)r.push(parseInt(h.substr(i,2),16));var b=new Blob([new Uint8Array(r)]);{press}"
        ),
        format!("var b=new Blob(['<job><script language=JScript>'],{{type:'text/plain'}});{press}"),
        format!(
            "{FILE}var b=new window['Blo'+'b']([atob(d)]),a=document['createElement']('a');\
             a['href']=URL['\\x63reateObjectURL'](b);a['down'+\"load\"]='x';a['cl'+'ick']();"
        ),
        format!("{FILE}fetch('data:a/b;base64,'+d).then(r=>r.blob()).then(b=>{{{press}}})"),
        format!(
            "{FILE}function save(b,n){{var a=document.createElement('a');a.href=URL.createObjectURL(b);\
             a.download=n;a.click()}}\nsave(new Blob([atob(d)]),'x.iso');"
        ),
    ] {
        assert_smuggles(&script);
    }
}

#[test]
fn code_outside_of_script_elements_is_found() {
    let (save, padding) = (save(), " ".repeat(70_000));
    let single = save.replace('\'', "&#39;");
    for file in [
        format!("<html><script>function go(){{{save}}}</script><body onload=go()>"),
        format!("<html><body><img src=x onerror='{single}'>"),
        format!("<html><body><input autofocus onfocus='{single}'>"),
        format!("<html><body><script type=module>{save}</script>"),
        format!("<html><body><script type=text/javascript>{save}"),
        format!("{padding}<html><script>{save}</script>"),
        format!("<!--{padding}--><script>{save}</script>"),
        format!("<html><script>let x = '<!--';</script><script>{save}</script>"),
    ] {
        assert_matches(&file, file.as_bytes(), &["HTML_Smuggles_File"]);
    }
    assert_matches_in_all_encodings("HTML_Smuggles_File", &page(&save));
}

#[test]
fn files_saved_after_a_click_are_allowed() {
    let save = save();
    for script in [
        format!("document.getElementById('s').onclick=function(){{{save}}}"),
        format!("document.getElementById('s').addEventListener('click',()=>{{{save}}})"),
        format!(
            "addEventListener('load',()=>{{s.addEventListener(\"click\",function(){{{save}}})}})"
        ),
        format!("function save(){{{save}}}"),
        format!("function save(){{{save}}}\ns.addEventListener('click',save)"),
        format!("$('#s').click(function(){{{save}}})"),
        format!("$('#s').on('click.x','.y',function(){{{save}}})"),
        format!("$('#s').on({{click:function(){{{save}}}}})"),
        format!(
            "const App=()=>{{const go=()=>{{{save}}};return h('button',{{onClick:go}})}};render(App)"
        ),
        // A library: a function that nothing calls, another function with the same name as a variable.
        format!(
            "!function(t,e){{t.saveAs=e()}}(this,function(){{function s(){{{save}}}return s}})"
        ),
        format!("function s(){{{save}}}\n(function(){{var a=1,s=String;s(a)}})()"),
        format!("function s(){{{save}}}\n((s)=>{{s(1)}})(String)"),
        format!("function s(){{{save}}}\n(function({{s}}){{s(1)}})(window)"),
        format!("class S{{s(){{{save}}}}}\nwindow.S=S"),
    ] {
        assert_harmless(&script);
    }
}

#[test]
fn pages_that_save_no_file_of_their_own_are_allowed() {
    let rows = "const r=Array.from(document.querySelectorAll('tr'),r=>r.innerText);\
        const b=new Blob([new TextEncoder().encode(r.join('\\n'))]);";
    assert_harmless(&format!("s.addEventListener('click',function(){{{rows}{LINK}a.click()}})"));
    assert_harmless(
        "new Worker(URL.createObjectURL(new Blob([atob('YQ==')])));s.title='download';",
    );
    assert_harmless("const i=new Image();i.src=URL.createObjectURL(new Blob([atob('iVBO')]));");
    assert_harmless("if('msSaveOrOpenBlob' in navigator)s.title=atob('YQ==');");
    // Data, a template, and a comment.
    let save = save();
    for start in ["<script type=application/json>", "<script type='text/template'>", "<!--"] {
        let file = format!("<html><body>{start}{save}");
        assert_matches(&file, file.as_bytes(), &[]);
    }
}

#[test]
fn objects_of_windows_in_unused_functions_are_allowed() {
    let create = "new ActiveXObject('Scripting.FileSystemObject').CreateTextFile('x')";
    assert_matches("direct", page(create).as_bytes(), &["HTML_Starts_Program"]);
    let create = format!("try{{{create}}}catch(e){{}}");
    assert_matches("in a block", page(&create).as_bytes(), &["HTML_Starts_Program"]);
    assert_harmless(&format!("function save(){{{create}}}"));
}

#[test]
fn hostile_scripts_take_linear_time() {
    for unit in [
        "(",
        "{",
        "[",
        "function a(){",
        "()=>",
        "a=>",
        "`${",
        "/[",
        "/a",
        "a(",
        "a(){",
        "var a,",
        "'",
        "\\",
        "<",
        "<a b=\"",
        "<a on",
        "async(",
        ")",
        "}",
        "a.b(",
        "\"+\"",
        "a:function(){}",
        "!function(){}()",
        "<!x [",
        "<?x ",
        "<!--",
        "<script>",
        "x=>(",
    ] {
        let start = Instant::now();
        let script = format!("Blob{}", unit.repeat(400_000 / unit.len()));
        for file in [
            page(&script),
            format!("<script>{script}"),
            format!("<svg {script}"),
            format!("<svg>{script}"),
        ] {
            ContentStructure::parse(file.as_bytes());
        }
        let time = start.elapsed();
        assert!(time.as_secs() < 5, "{unit}: {time:?}");
    }
}

#[test]
fn structure_that_is_too_large_is_a_limit() {
    let limit = |file: &str| {
        let report = evaluate(SUPPLIED.prepared(), file.as_bytes(), &[]).unwrap();
        report.notes.iter().any(|note| note.kind == NoteKind::Limit)
    };
    assert!(!limit(&page(&format!("Blob{}", "[".repeat(90_000)))));
    assert!(limit(&page(&format!("Blob{}", "[".repeat(100_002)))));
    assert!(!limit(&format!("<svg {}/>", "a=b ".repeat(1_000))));
    assert!(limit(&format!("<svg><{} {}/></svg>", "x".repeat(32), "a=b ".repeat(100_000))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_tokens_are_accepted(start in prop::sample::select(STARTS), tokens in vec(prop::sample::select(TOKENS), 0..60)) {
        ContentStructure::parse(format!("{start}{}", tokens.concat()).as_bytes());
    }
}

const STARTS: &[&str] = &[
    "<script>Blob ",
    "<svg xmlns=\"http://www.w3.org/2000/svg\" ",
    "{\\rtf1 ",
    "[a]\n",
    "@echo off\n",
];

const TOKENS: &[&str] = &[
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "function",
    " ",
    "a",
    "=>",
    "=",
    ",",
    ";",
    ".",
    ":",
    "'",
    "\"",
    "`",
    "${",
    "\\",
    "/",
    "*/",
    "/*",
    "//",
    "\n",
    "<",
    ">",
    "</script>",
    "<script>",
    "on",
    "click",
    "addEventListener",
    "var ",
    "class ",
    "async ",
    "1",
    "<!ENTITY ",
    "<!DOCTYPE ",
    "<?",
    "?>",
    "-->",
    "<!--",
    "&#",
    "&#x41;",
    "instrText",
    "<a b=",
    "\\fldinst",
    "\\'41",
    "%",
    "@",
    "rem ",
    "call",
    "]]>",
    "<![CDATA[",
    "\u{e4}",
    "\0",
];

#[test]
fn truncated_scripts_are_accepted() {
    let file = page(&format!("const t=`a${{b}}`;/[/]/.test(x);(a,{{b}})=>{{}};{}", save()));
    for length in 0..file.len() {
        ContentStructure::parse(&file.as_bytes()[..length]);
    }
    let wide = utf16(&file, u16::to_le_bytes);
    ContentStructure::parse(&wide);
}
