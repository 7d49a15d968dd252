"""A picture of a device's page as a browser shows it: Chromium without a window, spoken to by its DevTools protocol."""

import asyncio
import base64
import contextlib
import itertools
import json
import urllib.request

import aiohttp

from stage import Trouble, free_port, wait_until

SIZE_PX = (1280, 900)
# The page draws itself in pieces, and tells nobody when it is done.
DRAWN_AFTER_S = 12


def take(house, device, path):
    """Writes a PNG of the page of a device of MQTT's."""
    port = free_port()
    argv = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    argv += [f"--remote-debugging-port={port}", f"--user-data-dir={house.stage.directory / 'chromium'}"]
    with open(house.stage.directory / "chromium.log", "wb") as log:
        browser = house.stage.spawn([*argv, f"--window-size={SIZE_PX[0]},{SIZE_PX[1]}", "about:blank"], stdout=log, stderr=log)

    def pages():
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as answer:
            return [page for page in json.load(answer) if page["type"] == "page"]

    page = wait_until("Chromium", pages)[0]
    url = f"{house.hub.url}/config/devices/device/{house.hub.devices()[device]['id']}"
    tokens = {
        "access_token": house.hub.token, "token_type": "Bearer", "expires_in": 1800, "hassUrl": house.hub.url,
        "clientId": f"{house.hub.url}/", "expires": 9e15, "refresh_token": "",
    }
    path.write_bytes(asyncio.run(picture(page["webSocketDebuggerUrl"], house.hub.url, url, tokens)))
    browser.terminate()
    browser.wait(20)


async def picture(socket_url, origin, url, tokens):
    numbers = itertools.count(1)
    async with aiohttp.ClientSession() as session, session.ws_connect(socket_url, max_msg_size=0) as socket:

        async def command(method, **parameters):
            number = next(numbers)
            await socket.send_json({"id": number, "method": method, "params": parameters})
            while True:
                answer = json.loads((await asyncio.wait_for(socket.receive(), 60)).data)
                if answer.get("id") == number:
                    if "error" in answer:
                        raise Trouble(f"{method}: {answer['error']}")
                    return answer["result"]

        width, height = SIZE_PX
        await command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        # Whoever has logged in keeps the token there.
        await command("Page.navigate", url=f"{origin}/manifest.json")
        await asyncio.sleep(2)
        store = f"localStorage.setItem('hassTokens', {json.dumps(json.dumps(tokens))})"
        await command("Runtime.evaluate", expression=store)
        await command("Page.navigate", url=url)
        await asyncio.sleep(DRAWN_AFTER_S)
        return base64.b64decode((await command("Page.captureScreenshot", format="png"))["data"])
