package org.sparserec.app

import android.content.pm.ApplicationInfo
import android.content.pm.PackageManager
import android.content.pm.ServiceInfo
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config

/** The oldest level that the app takes and the newest that Robolectric knows, and the manifest. */
@Config(sdk = [26, 35])
class LevelsTest : AppTest() {
    @Test
    fun `a bundle is found, trained in the foreground and reported`() {
        push("short")
        Robolectric.buildActivity(MainActivity::class.java).setup()
        val values = values("short")
        RunService.train(app, values)
        val service = deliverStart()
        assertEquals(
            RunNotifications.PROGRESS,
            shadowOf(service).lastForegroundNotificationId,
        )
        waitFor("the run to end") { LiveRun.current?.isRunning == false }
        assertNull(LiveRun.current!!.ended!!.error)
        Robolectric.buildActivity(ReportActivity::class.java).setup()
        Robolectric.buildActivity(NoticesActivity::class.java).setup()
        assertEquals("succeeded", report(values).getString("exit_status"))
    }

    @Test
    @Config(sdk = [34])
    fun `only the launcher's entry is exported, and there is no network`() {
        val flags = PackageManager.GET_ACTIVITIES or PackageManager.GET_SERVICES or
            PackageManager.GET_PROVIDERS or PackageManager.GET_RECEIVERS or
            PackageManager.GET_PERMISSIONS
        val info = app.packageManager.getPackageInfo(app.packageName, flags)
        val components = info.activities!!.toList() + info.services!! + info.providers!! +
            info.receivers.orEmpty()
        val exported = components.filter { it.exported }.map { it.name }
        assertEquals(listOf(MainActivity::class.java.name), exported)
        assertEquals(
            ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE,
            info.services!!.single().foregroundServiceType,
        )
        assertEquals(
            listOf(
                "FOREGROUND_SERVICE",
                "FOREGROUND_SERVICE_SPECIAL_USE",
                "POST_NOTIFICATIONS",
                "WAKE_LOCK",
            ),
            info.requestedPermissions!!.map { it.removePrefix("android.permission.") },
        )
        assertFalse(info.applicationInfo!!.flags and ApplicationInfo.FLAG_ALLOW_BACKUP != 0)
        assertTrue(info.applicationInfo!!.flags and ApplicationInfo.FLAG_DEBUGGABLE == 0)
    }
}
