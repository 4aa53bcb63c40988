<?php
// Sends a text to a room of the cluster_chat: php publish.php tcp://127.0.0.1:6379 tea 'milk?' (or unix:///run/redis.sock).
[, $redis, $room, $text] = $argv;
$socket = stream_socket_client($redis);
function ask($socket, ...$words) {
    $word = fn ($word) => "$" . strlen($word) . "\r\n$word\r\n";
    fwrite($socket, "*" . count($words) . "\r\n" . implode("", array_map($word, $words)));
    return fgets($socket);
}
if ($password = getenv("REDIS_PASSWORD")) echo ask($socket, "AUTH", $password);
echo ask($socket, "PUBLISH", "chat:group:$room", json_encode(["text" => $text], JSON_THROW_ON_ERROR));
