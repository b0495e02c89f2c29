// A web client: matrix-js-sdk and the attachment encryption that Element Web uses, made callable by
// parts/browser.py. Bytes come and go in base64.
import { createClient } from "matrix-js-sdk";
import { decryptAttachment, encryptAttachment } from "matrix-encrypt-attachment";

const PREFIX = "/_matrix/media_proxy/unstable";
let client, scanner;

const authorization = () => ({ Authorization: `Bearer ${client.getAccessToken()}` });

// As Element Web's module does it: the media's address at the homeserver, with another path.
function address(mxc, route = "download") {
    const url = new URL(client.mxcUrlToHttp(mxc, undefined, undefined, undefined, false, true, true));
    return url.href.replace(`${url.origin}/_matrix/client/v1/media/download`, `${scanner}${PREFIX}/${route}`);
}

// What a script on the page sees of an answer.
async function seen(answer) {
    const bytes = new Uint8Array(await answer.arrayBuffer());
    const text = new TextDecoder().decode(bytes);
    let json = null;
    if (answer.headers.get("content-type") === "application/json") json = JSON.parse(text);
    return { status: answer.status, headers: Object.fromEntries(answer.headers), body: bytes.toBase64(), json };
}

window.web = {
    async logIn(homeserver, user, password, itsScanner) {
        const identifier = { type: "m.id.user", user };
        const login = await createClient({ baseUrl: homeserver }).loginRequest({ type: "m.login.password", identifier, password });
        client = createClient({ baseUrl: homeserver, accessToken: login.access_token, userId: login.user_id });
        scanner = itsScanner;
    },

    async logOut() {
        await client.logout(true);
    },

    // The token for the worker, which sends it with what a page's elements ask the scanner for.
    async useWorker() {
        const registration = await navigator.serviceWorker.register("worker.js");
        await navigator.serviceWorker.ready;
        const controlled = new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", done));
        if (!navigator.serviceWorker.controller) await controlled;
        const told = new MessageChannel();
        const heard = new Promise((done) => (told.port1.onmessage = done));
        registration.active.postMessage({ scanner, headers: authorization() }, [told.port2]);
        await heard;
    },

    async upload(base64, type, name) {
        const { content_uri } = await client.uploadContent(new Blob([Uint8Array.fromBase64(base64)], { type }), { name, type });
        return content_uri;
    },

    async uploadEncrypted(base64) {
        const { data, info } = await encryptAttachment(Uint8Array.fromBase64(base64).buffer);
        const { content_uri } = await client.uploadContent(new Blob([data]), { type: "application/octet-stream" });
        return { ...info, url: content_uri, mimetype: "image/png" };
    },

    address,

    async fetch(mxc, route, options = {}) {
        return seen(await fetch(address(mxc, route), { headers: authorization(), ...options }));
    },

    async request(path, options) {
        return seen(await fetch(`${scanner}${path}`, options));
    },

    async post(route, value) {
        const headers = { ...authorization(), "Content-Type": "application/json" };
        return seen(await fetch(`${scanner}${PREFIX}/${route}`, { method: "POST", headers, body: JSON.stringify(value) }));
    },

    async decrypt(base64, file) {
        return new Uint8Array(await decryptAttachment(Uint8Array.fromBase64(base64).buffer, file)).toBase64();
    },

    // Its size as shown, or null where it is not.
    async image(src) {
        const image = document.body.appendChild(new Image());
        image.src = src;
        try {
            await image.decode();
        } catch {
            return null;
        }
        return [image.naturalWidth, image.naturalHeight];
    },

    // The colours in the middle of a video at these seconds, sought in their order.
    async video(src, seconds) {
        const video = document.body.appendChild(document.createElement("video"));
        const happens = (what) =>
            new Promise((done, failed) => {
                video.addEventListener(what, done, { once: true });
                video.addEventListener("error", () => failed(new Error(video.error.message)), { once: true });
            });
        Object.assign(video, { crossOrigin: "anonymous", muted: true, preload: "metadata", src });
        await happens("loadedmetadata");
        const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
        const context = canvas.getContext("2d");
        const colours = [];
        for (const second of seconds) {
            const sought = happens("seeked");
            video.currentTime = second;
            await sought;
            context.drawImage(video, video.videoWidth / 2, video.videoHeight / 2, 1, 1, 0, 0, 1, 1);
            colours.push([...context.getImageData(0, 0, 1, 1).data.slice(0, 3)]);
        }
        return { duration: video.duration, colours };
    },
};
