//! The functions of a page, and which of them run without a click.

use std::collections::HashMap;

/// The code outside of functions.
pub(super) const GLOBAL: usize = 0;

/// Maximum number of functions in each other. Deeper ones count as code of the function around them.
const MAX_DEPTH: usize = 250;

/// Maximum number of functions, declarations and calls in a page.
const MAX_ENTRIES: usize = 2_000_000;

/// Number of functions in a page up to which calls of methods are followed. In large libraries, methods of different
/// objects have the same name.
const MAX_METHODS: usize = 300;

/// A function, or the code outside of functions.
#[derive(Default)]
struct CodeFunction<'a> {
    parent: usize,
    depth: usize,
    code: Vec<u8>,
    /// Names of functions that are called.
    calls: Vec<&'a [u8]>,
    /// Names of methods that are called.
    method_calls: Vec<&'a [u8]>,
    /// Functions in this one that run with it.
    started: Vec<usize>,
}

/// All functions of a page.
pub(super) struct PageProgram<'a> {
    functions: Vec<CodeFunction<'a>>,
    /// What a name means in a function. No functions: another value.
    names: HashMap<(usize, &'a [u8]), Vec<usize>>,
    methods: HashMap<&'a [u8], Vec<usize>>,
    /// Number of functions, declarations and calls.
    entries: usize,
    is_limited: bool,
}

impl Default for PageProgram<'_> {
    fn default() -> Self {
        Self {
            functions: vec![CodeFunction::default()],
            names: HashMap::new(),
            methods: HashMap::new(),
            entries: 0,
            is_limited: false,
        }
    }
}

impl<'a> PageProgram<'a> {
    /// Notes that a script is too large.
    pub(super) fn limit(&mut self) {
        self.is_limited = true;
    }

    /// Counts an entry. Returns whether it may be added.
    fn count(&mut self) -> bool {
        self.entries += 1;
        self.is_limited |= self.entries > MAX_ENTRIES;
        !self.is_limited
    }

    /// Adds a function. Returns its number, that of the function around it if it is too deep.
    pub(super) fn add(&mut self, parent: usize) -> usize {
        let depth = self.functions.get(parent).map_or(0, |function| function.depth) + 1;
        if depth > MAX_DEPTH || !self.count() {
            return parent;
        }
        self.functions.push(CodeFunction { parent, depth, ..CodeFunction::default() });
        self.functions.len() - 1
    }

    /// Lets a function run with the one around it.
    pub(super) fn start(&mut self, function: usize) {
        let parent = self.functions.get(function).map(|function| function.parent);
        let parent = parent.and_then(|parent| self.functions.get_mut(parent));
        if let Some(parent) = parent
            && function != GLOBAL
        {
            parent.started.push(function);
        }
    }

    /// Declares a name in a function: of another function, or of another value.
    pub(super) fn declare(&mut self, scope: usize, name: &'a [u8], function: Option<usize>) {
        if self.count() {
            self.names.entry((scope, name)).or_default().extend(function);
        }
    }

    pub(super) fn add_method(&mut self, name: &'a [u8], function: usize) {
        if self.count() {
            self.methods.entry(name).or_default().push(function);
        }
    }

    pub(super) fn call(&mut self, caller: usize, name: &'a [u8]) {
        if self.count()
            && let Some(caller) = self.functions.get_mut(caller)
        {
            caller.calls.push(name);
        }
    }

    /// Takes back the last call if it has this name: it is the definition of a method.
    pub(super) fn take_back_call(&mut self, caller: usize, name: &'a [u8]) {
        if let Some(caller) = self.functions.get_mut(caller)
            && let Some(position) = caller.calls.iter().rposition(|call| *call == name)
        {
            caller.calls.swap_remove(position);
        }
    }

    pub(super) fn call_method(&mut self, caller: usize, name: &'a [u8]) {
        if self.count()
            && let Some(caller) = self.functions.get_mut(caller)
        {
            caller.method_calls.push(name);
        }
    }

    /// Returns the code of a function, to which the parser appends.
    pub(super) fn code(&mut self, function: usize) -> Option<&mut Vec<u8>> {
        self.functions.get_mut(function).map(|function| &mut function.code)
    }

    /// Returns the code that runs without a click; `None` if a script is too large.
    pub(super) fn startup_code(mut self) -> Option<Vec<u8>> {
        if self.is_limited {
            return None;
        }
        let mut is_reached = vec![false; self.functions.len()];
        let mut waiting = vec![GLOBAL];
        let mut output = Vec::new();
        while let Some(index) = waiting.pop() {
            let Some(reached) = is_reached.get_mut(index) else { continue };
            if std::mem::replace(reached, true) {
                continue;
            }
            let Some(function) = self.functions.get_mut(index) else { continue };
            output.extend(std::mem::take(&mut function.code));
            output.push(b'\n');
            let Some(function) = self.functions.get(index) else { continue };
            waiting.extend(&function.started);
            waiting.extend(function.calls.iter().flat_map(|name| self.resolve(index, name)));
            if self.functions.len() <= MAX_METHODS {
                let methods = function.method_calls.iter();
                waiting.extend(methods.filter_map(|name| self.methods.get(name)).flatten());
            }
        }
        Some(output)
    }

    /// Returns the functions that a name means in a function.
    fn resolve(&self, scope: usize, name: &'a [u8]) -> &[usize] {
        let mut scope = scope;
        loop {
            if let Some(functions) = self.names.get(&(scope, name)) {
                return functions;
            }
            match self.functions.get(scope) {
                Some(function) if scope != GLOBAL => scope = function.parent,
                _ => return &[],
            }
        }
    }
}
