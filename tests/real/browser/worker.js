// Page elements cannot send a token. As in web clients, a service worker adds the token to their requests.
let settings = null;

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("message", (event) => {
    settings = event.data;
    event.ports[0].postMessage("ready");
});
addEventListener("fetch", (event) => {
    const { method, url, headers } = event.request;
    if (settings === null || method !== "GET" || !url.startsWith(`${settings.scanner}/`) || headers.has("Authorization")) return;
    const range = headers.get("Range");
    event.respondWith(fetch(url, { headers: { ...settings.headers, ...(range && { Range: range }) } }));
});
