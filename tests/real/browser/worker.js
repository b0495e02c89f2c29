// As web clients do it: elements of a page cannot send a token, so a service worker sends it for them.
let known = null;

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("message", (event) => {
    known = event.data;
    event.ports[0].postMessage("known");
});
addEventListener("fetch", (event) => {
    const { method, url, headers } = event.request;
    if (known === null || method !== "GET" || !url.startsWith(`${known.scanner}/`) || headers.has("Authorization")) return;
    const range = headers.get("Range");
    event.respondWith(fetch(url, { headers: { ...known.headers, ...(range && { Range: range }) } }));
});
