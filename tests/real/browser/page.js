// Web client with matrix-js-sdk and the attachment encryption of Element Web, called by parts/browser.py. Bytes are
// passed in base64.
import { createClient } from "matrix-js-sdk";
import { decryptAttachment, encryptAttachment } from "matrix-encrypt-attachment";

const PREFIX = "/_matrix/media_proxy/unstable";
let client, scanner;

const authorization = () => ({ Authorization: `Bearer ${client.getAccessToken()}` });

// Returns the scanner URL of a file. Like the module of Element Web, replaces the path of the homeserver URL.
function address(mxc, route = "download") {
    const url = new URL(client.mxcUrlToHttp(mxc, undefined, undefined, undefined, false, true, true));
    return url.href.replace(`${url.origin}/_matrix/client/v1/media/download`, `${scanner}${PREFIX}/${route}`);
}

// Returns the parts of a response that a script on the page can read.
async function readResponse(response) {
    const bytes = new Uint8Array(await response.arrayBuffer());
    const text = new TextDecoder().decode(bytes);
    let json = null;
    if (response.headers.get("content-type") === "application/json") json = JSON.parse(text);
    return { status: response.status, headers: Object.fromEntries(response.headers), body: bytes.toBase64(), json };
}

window.web = {
    async logIn(homeserver, user, password, scannerUrl) {
        const identifier = { type: "m.id.user", user };
        const login = await createClient({ baseUrl: homeserver }).loginRequest({ type: "m.login.password", identifier, password });
        client = createClient({ baseUrl: homeserver, accessToken: login.access_token, userId: login.user_id });
        scanner = scannerUrl;
    },

    async logOut() {
        await client.logout(true);
    },

    // Passes the token to the worker, which adds it to requests of page elements.
    async useWorker() {
        const registration = await navigator.serviceWorker.register("worker.js");
        await navigator.serviceWorker.ready;
        const controlled = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve));
        if (!navigator.serviceWorker.controller) await controlled;
        const channel = new MessageChannel();
        const acknowledged = new Promise((resolve) => (channel.port1.onmessage = resolve));
        registration.active.postMessage({ scanner, headers: authorization() }, [channel.port2]);
        await acknowledged;
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
        return readResponse(await fetch(address(mxc, route), { headers: authorization(), ...options }));
    },

    async request(path, options) {
        return readResponse(await fetch(`${scanner}${path}`, options));
    },

    async post(route, value) {
        const headers = { ...authorization(), "Content-Type": "application/json" };
        return readResponse(await fetch(`${scanner}${PREFIX}/${route}`, { method: "POST", headers, body: JSON.stringify(value) }));
    },

    async decrypt(base64, file) {
        return new Uint8Array(await decryptAttachment(Uint8Array.fromBase64(base64).buffer, file)).toBase64();
    },

    // Returns the size of the displayed picture, or null if it cannot be displayed.
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

    // Seeks to each position in seconds; returns the duration and the colours in the middle of the frames.
    async video(src, seconds) {
        const video = document.body.appendChild(document.createElement("video"));
        const waitForEvent = (name) =>
            new Promise((resolve, reject) => {
                video.addEventListener(name, resolve, { once: true });
                video.addEventListener("error", () => reject(new Error(video.error.message)), { once: true });
            });
        Object.assign(video, { crossOrigin: "anonymous", muted: true, preload: "metadata", src });
        await waitForEvent("loadedmetadata");
        const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
        const context = canvas.getContext("2d");
        const colours = [];
        for (const second of seconds) {
            const seeked = waitForEvent("seeked");
            video.currentTime = second;
            await seeked;
            context.drawImage(video, video.videoWidth / 2, video.videoHeight / 2, 1, 1, 0, 0, 1, 1);
            colours.push([...context.getImageData(0, 0, 1, 1).data.slice(0, 3)]);
        }
        return { duration: video.duration, colours };
    },
};
